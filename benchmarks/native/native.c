/* The mechanisms of transports/ in C, with the exchange of a lane: a command of 512 bytes, a reply of 64 bytes of head
 * and the content of a file. Do differences between mechanisms that the harness measures hold for programs in C?
 *
 * It stands in for two programs of the harness, with their options and their lines of JSON, so that live blocks run it
 * beside them: `simplecached` and `lane --slices` (docs/programs.md). Each has one worker and one lane.
 *
 *     NATIVE bare|bounded simplecached -c ROOT --command NAME --name RENDEZVOUS ...
 *     NATIVE bare|bounded lane --data NAME:chunk=...,... --name RENDEZVOUS -w WORKLOAD --verify ROOT --slices ...
 *
 * bare: every wait is the plainest call, and may last for ever. bounded: every wait ends after --timeout, as the
 * contract of transports promises, by the means that the harness uses for the mechanism.
 *
 * The two meet at an abstract Unix socket, unix(7), over which the objects go as descriptors or SysV numbers.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { COMMAND = 512, HEAD = 64, PATHS = 4096, MOST_FDS = 4, MESSAGES = 10, READ = 1 << 20 };

struct command {
	uint64_t id;
	uint16_t lane, path; /* bytes of each in the text */
	char text[500];
};

struct head {
	uint64_t id, status, length, unused[5];
};

static bool bounded;
static double timeout_s = 5;

static void fail(const char *format, ...)
{
	char text[512];
	va_list values;
	va_start(values, format);
	int count = vsnprintf(text, sizeof text - 1, format, values);
	va_end(values);
	size_t length = count < 0 ? 0 : (size_t)count < sizeof text - 2 ? (size_t)count : sizeof text - 2;
	text[length] = '\n';
	(void)!write(2, text, length + 1);
	_exit(1);
}

static void check(bool right, const char *what)
{
	if (!right)
		fail("%s: %s", what, strerror(errno));
}

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static struct timespec limit_of(double seconds)
{
	return (struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
}

static struct timespec from_now(clockid_t clock)
{
	struct timespec time, limit = limit_of(timeout_s);
	clock_gettime(clock, &time);
	time.tv_sec += limit.tv_sec;
	time.tv_nsec += limit.tv_nsec;
	if (time.tv_nsec >= 1000000000) {
		time.tv_sec++;
		time.tv_nsec -= 1000000000;
	}
	return time;
}

static void await(int fd, short events)
{
	struct pollfd one = {.fd = fd, .events = events};
	if (poll(&one, 1, (int)(timeout_s * 1000)) < 1)
		fail("nothing came, or nothing was taken, for %g s", timeout_s);
}

/* Has the kernel end blocking calls, socket(7), which costs nothing a call. */
static void limit_waits(int socket)
{
	struct timespec left = limit_of(timeout_s);
	struct timeval limit = {left.tv_sec, left.tv_nsec / 1000};
	if (!bounded)
		return;
	check(!setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
	check(!setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), "SO_SNDTIMEO");
}

/* --- What the two programs share --- */

struct slots { /* a ring in shared memory: transports/common/ring.py */
	uint64_t published, unused[7], taken, unused_too[7];
	sem_t free, full;
	uint64_t lengths[64];
};

struct channel { /* of commands or content; goes to the other program, with the descriptors */
	char name[16];
	uint64_t chunk, depth, stride;
	int sems, queue, memory; /* numbers of SysV objects, or -1 */
	int fds[MOST_FDS], count;
};

static struct channel commands, content;

static bool is(const struct channel *channel, const char *name)
{
	return !strcmp(channel->name, name);
}

static void send_fds(int socket, const void *data, size_t size, const int *fds, int count)
{
	union {
		char room[CMSG_SPACE(MOST_FDS * sizeof(int))];
		struct cmsghdr header;
	} control = {0};
	struct iovec part = {(void *)data, size};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	if (count) {
		message.msg_control = control.room;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.header = (struct cmsghdr){CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
	}
	check(sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)size, "sendmsg");
}

/* Returns how many bytes came; 0 where the other end has closed. */
static size_t receive_fds(int socket, void *data, size_t size, int *fds, int most)
{
	union {
		char room[CMSG_SPACE(MOST_FDS * sizeof(int))];
		struct cmsghdr header;
	} control;
	struct iovec part = {data, size};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room};
	message.msg_controllen = sizeof control.room;
	ssize_t count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	check(count >= 0, "recvmsg");
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (header && fds)
		memcpy(fds, CMSG_DATA(header), most * sizeof(int));
	return count;
}

static void send_channel(int socket, const struct channel *channel)
{
	send_fds(socket, channel, sizeof *channel, channel->fds, channel->count);
}

static void receive_channel(int socket, struct channel *channel)
{
	int fds[MOST_FDS];
	if (receive_fds(socket, channel, sizeof *channel, fds, MOST_FDS) != sizeof *channel)
		fail("the other program has ended");
	memcpy(channel->fds, fds, channel->count * sizeof(int));
}

/* --- Making channels, without a name that stays --- */

/* The value of an option in NAME:option=value,...; `other` where it is not there. Sizes may end with KiB or MiB. */
static uint64_t option(const char *text, const char *name, uint64_t other)
{
	char wanted[32], *end;
	snprintf(wanted, sizeof wanted, "%s=", name);
	const char *found = strstr(text, wanted);
	if (!found)
		return other;
	uint64_t value = strtoull(found + strlen(wanted), &end, 10);
	int shift = !strncmp(end, "KiB", 3) ? 10 : !strncmp(end, "MiB", 3) ? 20 : 0;
	end += shift ? 3 : 0;
	if (!value || (*end && *end != ','))
		fail("%s: %s must be a whole number from 1 on, with KiB or MiB where it is a size", text, name);
	return value << shift;
}

static void check_options(const char *text, const char *known)
{
	for (const char *at = strchr(text, ':'); at; at = strchr(at + 1, ',')) {
		char name[32];
		snprintf(name, sizeof name, " %.*s ", (int)strcspn(at + 1, "="), at + 1);
		if (!strstr(known, name))
			fail("%s: there is no option%s", text, *known ? name : "");
	}
}

static int make_queue(uint64_t depth, uint64_t size)
{
	char name[64];
	struct mq_attr sizes = {.mq_maxmsg = (long)depth, .mq_msgsize = (long)size};
	snprintf(name, sizeof name, "/th-native-%d", getpid());
	mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &sizes);
	check(queue >= 0, "mq_open");
	mq_unlink(name);
	return queue;
}

static void make_pipe(struct channel *channel, uint64_t size)
{
	int ends[2]; /* a pipe without a name moves bytes as a FIFO does, fifo(7) */
	check(!pipe2(ends, O_CLOEXEC | (bounded ? O_NONBLOCK : 0)), "pipe2");
	check(!size || fcntl(ends[1], F_SETPIPE_SZ, (int)size) > 0, "F_SETPIPE_SZ");
	channel->fds[0] = ends[0];
	channel->fds[1] = ends[1];
	channel->count = 2;
}

static void make_sockets(struct channel *channel, int type, uint64_t buffer)
{
	int ends[2], size = (int)buffer;
	check(!socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends), "socketpair");
	for (int end = 0; end < 2; end++) {
		check(!size || !setsockopt(ends[end], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), "SO_SNDBUF");
		limit_waits(ends[end]);
		channel->fds[end] = ends[end];
	}
	channel->count = 2;
}

static int make_sysv_queue(void)
{
	int queue = msgget(IPC_PRIVATE, 0600);
	check(queue >= 0, "msgget");
	return queue;
}

static size_t memory_size(const struct channel *channel)
{
	return 8192 + channel->depth * channel->stride;
}

static void make_commands(const char *text)
{
	check_options(text, "");
	snprintf(commands.name, sizeof commands.name, "%.*s", (int)strcspn(text, ":"), text);
	commands.sems = commands.queue = commands.memory = -1;
	if (is(&commands, "posix_mq")) {
		commands.fds[0] = make_queue(MESSAGES, COMMAND);
		commands.count = 1;
	} else if (is(&commands, "fifo"))
		make_pipe(&commands, 0);
	else if (is(&commands, "unix"))
		make_sockets(&commands, SOCK_DGRAM, 0);
	else if (is(&commands, "sysv_mq"))
		commands.queue = make_sysv_queue();
	else
		fail("no commands over %s here: posix_mq, fifo, unix, sysv_mq", commands.name);
}

static void make_content(const char *text)
{
	struct channel *channel = &content;
	snprintf(channel->name, sizeof channel->name, "%.*s", (int)strcspn(text, ":"), text);
	channel->sems = channel->queue = channel->memory = -1;
	bool queue = is(channel, "posix_mq") || is(channel, "sysv_mq");
	channel->chunk = option(text, "chunk", queue ? 8192 : 1 << 18); /* the harness's own, where nothing is said */
	channel->depth = option(text, "depth", 4);
	if (channel->chunk <= HEAD)
		fail("%s: chunk must be over %d", text, HEAD);
	check_options(text, " chunk depth pipe_size buffer ");
	channel->stride = (channel->chunk + 4095) / 4096 * 4096;
	if (channel->depth > 64)
		fail("depth=%lu: at most 64 here", (unsigned long)channel->depth);
	if (is(channel, "posix_shm")) {
		int memory = memfd_create("native", MFD_CLOEXEC); /* the same memory as of shm_open(3), without a name */
		check(memory >= 0 && !posix_fallocate(memory, 0, (off_t)memory_size(channel)), "shared memory");
		channel->fds[0] = memory;
		channel->count = 1;
	} else if (is(channel, "sysv_shm")) {
		channel->memory = shmget(IPC_PRIVATE, memory_size(channel), 0600);
		channel->sems = semget(IPC_PRIVATE, 2, 0600);
		check(channel->memory >= 0 && channel->sems >= 0, "shmget, semget");
		check(!semctl(channel->sems, 0, SETVAL, (int)channel->depth), "semctl");
		check(!semctl(channel->sems, 1, SETVAL, 0), "semctl");
	} else if (is(channel, "posix_mq")) {
		channel->fds[0] = make_queue(channel->depth, channel->chunk);
		channel->count = 1;
	} else if (is(channel, "sysv_mq"))
		channel->queue = make_sysv_queue();
	else if (is(channel, "fifo") || is(channel, "splice"))
		make_pipe(channel, option(text, "pipe_size", 1 << 18));
	else if (is(channel, "unix"))
		make_sockets(channel, SOCK_STREAM, option(text, "buffer", 200 << 10));
	else if (is(channel, "sendfile"))
		make_sockets(channel, SOCK_DGRAM, 0);
	else
		fail("no content over %s here; the makers of channels name what there is", channel->name);
}

static void remove_channels(void)
{
	for (struct channel *one = &commands; one; one = one == &commands ? &content : NULL) {
		if (!*one->name)
			continue;
		if (one->queue >= 0)
			msgctl(one->queue, IPC_RMID, NULL);
		if (one->memory >= 0)
			shmctl(one->memory, IPC_RMID, NULL);
		if (one->sems >= 0)
			semctl(one->sems, 0, IPC_RMID);
	}
}

/* --- Messages: pipes, sockets and queues --- */

/* msgsnd(2) and msgrcv(2) have no timeouts. As in the harness a thread ends waits that are overdue. */
static _Atomic uint64_t overdue;

static void *watch(void *unused)
{
	for (;;) {
		usleep(100000);
		uint64_t until = overdue;
		if (until && now() > until)
			fail("the queue kept a call waiting for %g s", timeout_s);
	}
	return unused;
}

static void send_sysv(int queue, void *message, size_t count)
{
	if (bounded)
		overdue = now() + (uint64_t)(timeout_s * 1e9);
	check(!msgsnd(queue, message, count, 0), "msgsnd");
	overdue = 0;
}

static size_t receive_sysv(int queue, void *message, size_t room)
{
	if (bounded)
		overdue = now() + (uint64_t)(timeout_s * 1e9);
	ssize_t count = msgrcv(queue, message, room, 0, 0);
	check(count >= 0, "msgrcv");
	overdue = 0;
	return count;
}

static void send_queue(int queue, const char *data, size_t count)
{
	if (bounded) {
		struct timespec until = from_now(CLOCK_REALTIME);
		check(!mq_timedsend(queue, data, count, 0, &until), "mq_timedsend");
	} else
		check(!mq_send(queue, data, count, 0), "mq_send");
}

static size_t receive_queue(int queue, char *room, size_t size)
{
	ssize_t count;
	if (bounded) {
		struct timespec until = from_now(CLOCK_REALTIME);
		count = mq_timedreceive(queue, room, size, NULL, &until);
	} else
		count = mq_receive(queue, room, size, NULL);
	check(count >= 0, "mq_receive");
	return count;
}

static void write_all(int fd, const char *data, size_t count)
{
	while (count) {
		ssize_t written = write(fd, data, count);
		if (written < 0 && errno == EAGAIN) {
			await(fd, POLLOUT);
			continue;
		}
		check(written > 0, "write");
		data += written;
		count -= written;
	}
}

static size_t read_some(int fd, char *room, size_t size)
{
	for (;;) {
		ssize_t count = read(fd, room, size);
		if (count < 0 && errno == EAGAIN) {
			await(fd, POLLIN);
			continue;
		}
		check(count > 0, "read");
		return count;
	}
}

static struct {
	long type;
	char data[COMMAND];
} record = {.type = 1};

static void send_command(const struct command *command)
{
	if (commands.queue >= 0) {
		memcpy(record.data, command, COMMAND);
		send_sysv(commands.queue, &record, COMMAND);
	} else if (is(&commands, "posix_mq"))
		send_queue(commands.fds[0], (const char *)command, COMMAND);
	else if (is(&commands, "unix"))
		check(send(commands.fds[1], command, COMMAND, MSG_NOSIGNAL) == COMMAND, "send");
	else
		write_all(commands.fds[1], (const char *)command, COMMAND);
}

/* Waits for the first command as long as it takes: between slices of load there are none. */
static void receive_command(struct command *command)
{
	if (commands.queue >= 0) {
		ssize_t count = msgrcv(commands.queue, &record, COMMAND, 0, 0);
		if (count < 0 && errno == EIDRM)
			pause(); /* this process is ending */
		check(count == COMMAND, "msgrcv");
		memcpy(command, record.data, COMMAND);
		return;
	}
	for (;;) {
		ssize_t count;
		if (is(&commands, "posix_mq")) {
			struct timespec until = bounded ? from_now(CLOCK_REALTIME) : (struct timespec){0};
			count = bounded ? mq_timedreceive(commands.fds[0], (char *)command, COMMAND, NULL, &until)
					: mq_receive(commands.fds[0], (char *)command, COMMAND, NULL);
		} else
			count = read(commands.fds[0], command, COMMAND);
		if (count == COMMAND)
			return;
		if (count < 0 && errno == EAGAIN && is(&commands, "fifo")) {
			struct pollfd one = {.fd = commands.fds[0], .events = POLLIN};
			poll(&one, 1, (int)(timeout_s * 1000));
		} else if (count >= 0 || (errno != EAGAIN && errno != ETIMEDOUT && errno != EINTR))
			fail("commands: %s", strerror(errno));
	}
}

/* --- Content, piece by piece: the cache fills a room and publishes it, the lane takes a piece and gives it back --- */

static bool copying;  /* whether content goes to private memory */
static char *copied;
static struct slots *ring;
static char *buffer; /* of messages: a type, then `chunk` bytes */

static char *slot(uint64_t position)
{
	return (char *)ring + 8192 + position % content.depth * content.stride;
}

static void acquire(int which)
{
	if (content.sems >= 0) {
		struct sembuf one = {.sem_num = which, .sem_op = -1};
		struct timespec limit = limit_of(timeout_s);
		check(!(bounded ? semtimedop(content.sems, &one, 1, &limit) : semop(content.sems, &one, 1)), "semop");
		return;
	}
	sem_t *sem = which ? &ring->full : &ring->free;
	if (!bounded)
		check(!sem_wait(sem), "sem_wait");
	else if (sem_trywait(sem)) {
		struct timespec until = from_now(CLOCK_MONOTONIC);
		check(!sem_clockwait(sem, CLOCK_MONOTONIC, &until), "sem_clockwait");
	}
}

static void release(int which)
{
	if (content.sems >= 0) {
		struct sembuf one = {.sem_num = which, .sem_op = 1};
		check(!semop(content.sems, &one, 1), "semop");
	} else
		check(!sem_post(which ? &ring->full : &ring->free), "sem_post");
}

static void open_content(bool first)
{
	buffer = malloc(sizeof(long) + content.chunk);
	check(buffer, "malloc");
	memset(buffer, 1, sizeof(long) + content.chunk); /* its pages, and a message type other than 0 */
	*(long *)buffer = 1;
	if (content.sems >= 0)
		ring = shmat(content.memory, NULL, 0);
	else if (is(&content, "posix_shm"))
		ring = mmap(NULL, memory_size(&content), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, content.fds[0], 0);
	check(ring != MAP_FAILED, "mapping");
	if (ring && first) {
		memset(ring, 0, memory_size(&content));
		check(!sem_init(&ring->free, 1, (unsigned)content.depth) && !sem_init(&ring->full, 1, 0), "sem_init");
	} else if (ring)
		for (size_t at = 0; at < memory_size(&content); at += 4096)
			(void)*((volatile char *)ring + at);
	if (copying)
		check((copied = malloc(content.chunk)) != NULL, "malloc");
	if (bounded && (content.queue >= 0 || commands.queue >= 0)) {
		pthread_t thread;
		check(!pthread_create(&thread, NULL, watch, NULL), "pthread_create");
	}
}

static char *loan(void)
{
	if (!ring)
		return buffer + sizeof(long);
	acquire(0);
	return slot(ring->published);
}

static void publish(size_t count)
{
	char *data = buffer + sizeof(long);
	if (ring) {
		ring->lengths[ring->published % content.depth] = count;
		ring->published++;
		release(1);
	} else if (content.queue >= 0)
		send_sysv(content.queue, buffer, count);
	else if (is(&content, "posix_mq"))
		send_queue(content.fds[0], data, count);
	else if (is(&content, "unix"))
		check(send(content.fds[1], data, count, MSG_NOSIGNAL) == (ssize_t)count, "send");
	else
		write_all(content.fds[1], data, count);
}

/* begins: whether this is the first piece of a reply. */
static size_t take(char **piece, bool begins)
{
	char *data = *piece = buffer + sizeof(long);
	if (ring) {
		acquire(1);
		*piece = slot(ring->taken);
		return ring->lengths[ring->taken % content.depth];
	}
	if (content.queue >= 0)
		return receive_sysv(content.queue, buffer, content.chunk);
	if (is(&content, "posix_mq"))
		return receive_queue(content.fds[0], data, content.chunk);
	if (bounded && (begins || is(&content, "fifo")))
		await(content.fds[0], POLLIN); /* as the harness does: the next reply may come over another connection */
	size_t count = read_some(content.fds[0], data, content.chunk);
	while (begins && count < HEAD) /* a stream may hand the head out in parts */
		count += read_some(content.fds[0], data + count, content.chunk - count);
	return count;
}

static void give_back(void)
{
	if (ring) {
		ring->taken++;
		release(0);
	}
}

/* --- Whole replies: the cache --- */

static void splice_all(int from, off_t *offset, int to, size_t count)
{
	while (count) {
		ssize_t moved = splice(from, offset, to, NULL, count, SPLICE_F_MOVE | (bounded ? SPLICE_F_NONBLOCK : 0));
		if (moved < 0 && errno == EAGAIN) {
			if (!offset)
				await(from, POLLIN);
			await(to, POLLOUT);
			continue;
		}
		check(moved > 0, "splice");
		count -= moved;
	}
}

static void answer(uint64_t id, int fd)
{
	struct stat file;
	check(!fstat(fd, &file), "fstat");
	struct {
		struct head head;
		uint64_t more;
	} first = {.head = {.id = id, .length = (uint64_t)file.st_size}};
	if (is(&content, "sendfile")) {
		send_fds(content.fds[1], &first, sizeof first, &fd, 1);
		return;
	}
	if (is(&content, "splice")) {
		off_t offset = 0;
		first.more = (uint64_t)file.st_size;
		write_all(content.fds[1], (char *)&first, HEAD + 8);
		splice_all(fd, &offset, content.fds[1], file.st_size);
		return;
	}
	off_t sent = 0;
	for (size_t ahead = HEAD; ahead || sent < file.st_size; ahead = 0) {
		char *room = loan();
		memcpy(room, &first.head, ahead);
		size_t left = file.st_size - sent, fits = content.chunk - ahead;
		ssize_t count = left ? pread(fd, room + ahead, left < fits ? left : fits, sent) : 0;
		check(count > 0 || !left, "pread");
		publish(ahead + count);
		sent += count;
	}
}

static void *end_with_input(void *unused)
{
	char any[256];
	while (read(0, any, sizeof any) > 0)
		;
	remove_channels();
	_exit(0);
	return unused;
}

static struct {
	char path[500];
	int fd;
} files[PATHS];

static int find(const char *root, const char *path)
{
	size_t at = 5381;
	for (const char *letter = path; *letter; letter++)
		at = at * 33 + (unsigned char)*letter;
	for (at %= PATHS; *files[at].path; at = (at + 1) % PATHS)
		if (!strcmp(files[at].path, path))
			return files[at].fd;
	char whole[4096];
	snprintf(whole, sizeof whole, "%s%s", root, path);
	snprintf(files[at].path, sizeof files[at].path, "%s", path);
	files[at].fd = open(whole, O_RDONLY | O_CLOEXEC);
	check(files[at].fd >= 0, whole);
	return files[at].fd;
}

static int meeting_point(const char *rendezvous, struct sockaddr_un *address, socklen_t *size)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	int count = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "th-native-%d-%s", getuid(), rendezvous);
	*size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + count);
	int end = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	check(end >= 0, "socket");
	return end;
}

static void on_term(int number)
{
	remove_channels();
	_exit(number == SIGTERM ? 0 : 1);
}

static _Noreturn void serve(const char *root, const char *command, const char *rendezvous)
{
	struct sockaddr_un address;
	socklen_t size;
	int listener = meeting_point(rendezvous, &address, &size);
	check(!bind(listener, (struct sockaddr *)&address, size) && !listen(listener, 1), "bind");
	make_commands(command);
	signal(SIGTERM, on_term);
	pthread_t thread;
	check(!pthread_create(&thread, NULL, end_with_input, NULL), "pthread_create");
	printf("{\"ready\": \"simplecached\"}\n");
	fflush(stdout);
	int lane = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	check(lane >= 0, "accept4");
	send_channel(lane, &commands);
	receive_channel(lane, &content);
	open_content(false);
	for (struct command next;;) {
		receive_command(&next);
		char path[sizeof next.text + 1] = "";
		memcpy(path, next.text + next.lane, next.path);
		answer(next.id, find(root, path));
	}
}

/* --- The lane: requests, and slices of them --- */

static struct {
	char path[500];
	const char *data;
	size_t size;
} asked[PATHS];
static int workloads[64], workload_count; /* where each begins in `asked`; one more entry ends the last */
static bool verifying;
static int passed = -1; /* the descriptor of a file that came with a head */
static int sink = -1, control = -1; /* a socket whose other end a process reads, and where it gets those */

static bool ends_in_socket(void)
{
	return is(&content, "sendfile") || is(&content, "splice");
}

static void deliver(size_t count)
{
	if (is(&content, "splice")) {
		splice_all(content.fds[0], NULL, sink, count);
		return;
	}
	off_t offset = 0;
	while (count) {
		ssize_t moved = sendfile(sink, passed, &offset, count);
		if (moved < 0 && errno == EAGAIN) {
			await(sink, POLLOUT);
			continue;
		}
		check(moved > 0, "sendfile");
		count -= moved;
	}
	close(passed);
}

/* Makes one request. Returns the bytes of content; sets *wrong where they are not those of the file. */
static size_t request(int number, uint64_t id, bool *wrong)
{
	static struct command command;
	const char *path = asked[number].path;
	command.id = id;
	command.path = (uint16_t)strlen(path);
	memcpy(command.text, path, command.path);
	send_command(&command);
	struct head head;
	if (ends_in_socket()) {
		char first[HEAD + 8];
		if (is(&content, "sendfile"))
			check(receive_fds(content.fds[0], first, sizeof first, &passed, 1) == sizeof first, "the reply's head");
		else
			check(read_some(content.fds[0], first, sizeof first) == sizeof first, "the reply's head");
		memcpy(&head, first, HEAD);
		if (head.id != id)
			fail("the reply is to another request");
		deliver(head.length);
		return head.length;
	}
	char *piece;
	size_t count = take(&piece, true), got = 0;
	memcpy(&head, piece, HEAD);
	if (head.id != id)
		fail("the reply is to another request");
	for (size_t skip = HEAD;; skip = 0) {
		size_t here = count - skip;
		if (verifying && (got + here > asked[number].size || memcmp(piece + skip, asked[number].data + got, here)))
			*wrong = true;
		else if (copied)
			memcpy(copied, piece + skip, here);
		got += here;
		give_back();
		if (got >= head.length)
			break;
		count = take(&piece, false);
	}
	if (got != head.length)
		fail("%zu bytes of content, %zu announced", got, (size_t)head.length);
	return got;
}

/* A process that reads what comes over sockets and throws it away, or compares it: it stands for a client. */
struct reading {
	int32_t workload; /* whose files follow each other; -1: compare nothing */
	uint64_t first;
};

static void read_sockets(int from)
{
	static char room[READ];
	struct reading what;
	int socket;
	while (receive_fds(from, &what, sizeof what, &socket, 1)) {
		uint64_t totals[2] = {0, 0}, number = what.first;
		size_t done = 0;
		bool wrong = false;
		ssize_t count;
		while ((count = read(socket, room, sizeof room)) > 0) {
			totals[0] += count;
			for (ssize_t at = 0; what.workload >= 0 && at < count;) {
				int begin = workloads[what.workload], length = workloads[what.workload + 1] - begin;
				int file = begin + (int)(number % length);
				size_t left = asked[file].size - done, here = count - at;
				here = here < left ? here : left;
				wrong = wrong || memcmp(room + at, asked[file].data + done, here);
				at += here;
				done += here;
				if (done == asked[file].size) {
					totals[1] += wrong;
					wrong = false;
					number++;
					done = 0;
				}
			}
		}
		close(socket);
		check(send(from, totals, sizeof totals, MSG_NOSIGNAL) == sizeof totals, "send");
	}
	_exit(0);
}

static void begin_sink(int workload, uint64_t first)
{
	int ends[2];
	struct reading what = {.workload = verifying ? workload : -1, .first = first};
	check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
	if (bounded)
		fcntl(ends[0], F_SETFL, O_NONBLOCK);
	send_fds(control, &what, sizeof what, &ends[1], 1);
	close(ends[1]);
	sink = ends[0];
}

static uint64_t end_sink(uint64_t delivered)
{
	uint64_t totals[2];
	close(sink);
	check(recv(control, totals, sizeof totals, 0) == sizeof totals, "recv");
	if (totals[0] != delivered)
		fail("%lu bytes delivered, %lu came", (unsigned long)delivered, (unsigned long)totals[0]);
	return totals[1];
}

/* HdrHistogram's layout, as in harness/load/histogram.py. */
static uint64_t upper_bound(uint64_t value)
{
	int shift = value < 256 ? 0 : 56 - __builtin_clzll(value);
	return (((value >> shift) + 1) << shift) - 1;
}

static int ascending(const void *one, const void *other)
{
	uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
	return (a > b) - (a < b);
}

static uint64_t used(void)
{
	struct timespec time;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static double value_of(const char *line, const char *key)
{
	const char *found = strstr(line, key);
	return found ? strtod(found + strlen(key) + 2, NULL) : 0;
}

/* One slice of load: harness/load/slices.py says when its window opens and closes. */
static void slice(const char *line)
{
	enum { MOST = 1 << 20 };
	static uint64_t latencies[MOST];
	static uint64_t positions[64], id;
	uint64_t start = now(), before = used();
	int workload = (int)value_of(line, "\"workload\"");
	uint64_t opens = start + (uint64_t)(value_of(line, "\"lead_in\"") * 1e9);
	uint64_t closes = opens + (uint64_t)(value_of(line, "\"window\"") * 1e9);
	verifying = strstr(line, "\"verify\": true") != NULL;
	if (workload >= workload_count)
		fail("there is no workload %d", workload);
	int begin = workloads[workload], length = workloads[workload + 1] - begin;
	uint64_t opened = 0, closed = 0, bytes = 0, all = 0, all_bytes = 0, bad = 0, count = 0;
	if (control >= 0)
		begin_sink(workload, positions[workload]);
	while (count < MOST) {
		uint64_t begun = now();
		bool wrong = false;
		size_t got = request(begin + (int)(positions[workload]++ % length), ++id, &wrong);
		uint64_t ended = now();
		bad += wrong;
		all++;
		all_bytes += got;
		if (ended < opens)
			continue;
		if (!opened) {
			opened = ended;
			continue;
		}
		latencies[count++] = ended - begun;
		bytes += got;
		closed = ended;
		if (ended >= closes)
			break;
	}
	if (control >= 0)
		bad += end_sink(all_bytes);
	double busy = (double)(used() - before) / (double)(now() - start);
	qsort(latencies, count, sizeof *latencies, ascending);
	printf("{\"slice\": {\"opened_ns\": %lu, \"seconds\": %.9f, \"requests\": %lu, \"content_bytes\": %lu, "
	       "\"latency_p50_us\": %.3f, \"first_byte_p50_us\": 0, \"busy\": %.3f, \"all_requests\": %lu, "
	       "\"OK\": %lu, \"FILE_NOT_FOUND\": 0, \"ERROR\": 0, \"INVALID\": 0, \"short\": 0, \"wrong\": %lu, "
	       "\"failed\": 0, \"histogram\": [",
	       (unsigned long)opened, (double)(closed - opened) / 1e9, (unsigned long)count, (unsigned long)bytes,
	       (double)latencies[(count - 1) / 2] / 1e3, busy < 1 ? busy : 1, (unsigned long)all,
	       (unsigned long)(all - bad), (unsigned long)bad);
	for (uint64_t at = 0, same = 1; at < count; at++, same++)
		if (at + 1 == count || upper_bound(latencies[at]) != upper_bound(latencies[at + 1])) {
			printf("%s[%lu, %lu]", at + 1 == same ? "" : ", ", (unsigned long)upper_bound(latencies[at]), (unsigned long)same);
			same = 0;
		}
	printf("]}}\n");
	fflush(stdout);
}

static void read_workload(const char *name, const char *root)
{
	char line[600], whole[4096];
	FILE *list = fopen(name, "r");
	check(list, name);
	int count = workloads[workload_count++];
	while (fgets(line, sizeof line, list)) {
		line[strcspn(line, "\n")] = 0;
		if (count == PATHS)
			fail("more than %d paths", PATHS);
		snprintf(asked[count].path, sizeof asked[count].path, "%.499s", line);
		snprintf(whole, sizeof whole, "%s%s", root, line);
		int file = open(whole, O_RDONLY | O_CLOEXEC);
		struct stat found;
		check(file >= 0 && !fstat(file, &found), whole);
		asked[count].size = found.st_size;
		if (found.st_size)
			asked[count].data = mmap(NULL, found.st_size, PROT_READ, MAP_SHARED, file, 0);
		check(asked[count].data != MAP_FAILED, whole);
		close(file);
		count++;
	}
	workloads[workload_count] = count;
	fclose(list);
}

static int work(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (ends_in_socket()) {
		int ends[2];
		check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(ends[0]);
			read_sockets(ends[1]);
		}
		close(ends[1]);
		control = ends[0];
	}
	open_content(true);
	static char line[4096];
	printf("{\"ready\": \"lane\"}\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin))
		slice(line);
	return 0;
}

static pid_t worker;

static void end_worker(int number)
{
	kill(worker, SIGKILL);
	on_term(number);
}

static int ask(const char *data, const char *rendezvous)
{
	struct sockaddr_un address;
	socklen_t size;
	int cache = meeting_point(rendezvous, &address, &size);
	uint64_t until = now() + 30000000000ull;
	while (connect(cache, (struct sockaddr *)&address, size)) {
		if (now() > until)
			fail("no cache at %s", rendezvous);
		usleep(5000);
	}
	receive_channel(cache, &commands);
	make_content(data);
	check((worker = fork()) >= 0, "fork");
	if (!worker) {
		send_channel(cache, &content);
		_exit(work());
	}
	commands.queue = -1; /* it is the cache's, which removes it */
	signal(SIGTERM, end_worker);
	int status;
	check(waitpid(worker, &status, 0) == worker, "waitpid");
	remove_channels();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int count, char **words)
{
	const char *root = "", *command = "posix_mq", *data = "posix_shm", *rendezvous = "default", *what = "";
	const char *verify = "", *lists[64];
	int list_count = 0;
	if (count == 2 && !strcmp(words[1], "--version"))
		return printf("C, gcc %s\n", __VERSION__) < 0;
	if (count < 3)
		fail("usage: native bare|bounded simplecached|lane OPTION...");
	bounded = !strcmp(words[1], "bounded");
	what = words[2];
	for (int at = 3; at < count; at++) {
		const char *word = words[at];
		if (!strcmp(word, "--json") || !strcmp(word, "--until-eof") || !strcmp(word, "--slices"))
			continue; /* it can do nothing else */
		const char *value = ++at < count ? words[at] : "";
		if (!strcmp(word, "-c"))
			root = value;
		else if (!strcmp(word, "--command"))
			command = value;
		else if (!strcmp(word, "--data"))
			data = value;
		else if (!strcmp(word, "--name"))
			rendezvous = value;
		else if (!strcmp(word, "--timeout"))
			timeout_s = strtod(value, NULL);
		else if (!strcmp(word, "--verify"))
			verify = value;
		else if (!strcmp(word, "-w") && list_count < 63)
			lists[list_count++] = value;
		else if (!strcmp(word, "--sink") && (!strcmp(value, "copy") || !strcmp(value, "discard")))
			copying = !strcmp(value, "copy");
		else if ((strcmp(word, "-t") && strcmp(word, "-n") && strcmp(word, "--processes")) || strcmp(value, "1"))
			fail("%s %s: not here; there is one worker and one lane", word, value);
	}
	if (!strcmp(what, "simplecached"))
		serve(root, command, rendezvous);
	if (strcmp(what, "lane"))
		fail("%s: only simplecached and lane are here", what);
	for (int list = 0; list < list_count; list++)
		read_workload(lists[list], verify);
	return ask(data, rendezvous);
}
