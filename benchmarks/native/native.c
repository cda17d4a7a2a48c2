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

#include "native.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/wait.h>

/* --- What the two programs share --- */

struct channel { /* of commands or content; goes to the other program, with the descriptors */
	char name[16];
	struct ring ring; /* its sizes; where the content is no ring, those of its messages */
	int sems, queue, memory; /* numbers of SysV objects, or -1 */
	int fds[MOST_FDS], count;
};

static struct channel commands, content;

static bool is(const struct channel *channel, const char *name)
{
	return !strcmp(channel->name, name);
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
	channel->ring = ring_of(text, queue ? 8192 : 1 << 18); /* the harness's own, where nothing is said */
	check_options(text, " chunk depth pipe_size buffer ");
	if (is(channel, "posix_shm")) {
		channel->fds[0] = make_ring_memory(&channel->ring);
		channel->count = 1;
	} else if (is(channel, "sysv_shm")) {
		channel->memory = shmget(IPC_PRIVATE, ring_size(&channel->ring), 0600);
		channel->sems = semget(IPC_PRIVATE, 2, 0600);
		check(channel->memory >= 0 && channel->sems >= 0, "shmget, semget");
		check(!semctl(channel->sems, 0, SETVAL, (int)channel->ring.depth), "semctl");
		check(!semctl(channel->sems, 1, SETVAL, 0), "semctl");
	} else if (is(channel, "posix_mq")) {
		channel->fds[0] = make_queue(channel->ring.depth, channel->ring.chunk);
		channel->count = 1;
	} else if (is(channel, "sysv_mq"))
		channel->queue = make_sysv_queue();
	else if (is(channel, "fifo") || is(channel, "splice"))
		make_pipe(channel, option(text, "pipe_size", 1 << 18));
	else if (is(channel, "unix"))
		make_sockets(channel, SOCK_STREAM, option(text, "buffer", 200 << 10));
	else if (is(channel, "sendfile") || is(channel, "memfd"))
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
	if (is(&commands, "posix_mq")) {
		check(next_command(commands.fds[0], command) == COMMAND, "mq_receive");
		return;
	}
	for (;;) {
		ssize_t count = read(commands.fds[0], command, COMMAND);
		if (count == COMMAND)
			return;
		if (count < 0 && errno == EAGAIN && is(&commands, "fifo")) {
			struct pollfd one = {.fd = commands.fds[0], .events = POLLIN};
			poll(&one, 1, (int)(timeout_s * 1000));
		} else if (count >= 0 || (errno != EAGAIN && errno != EINTR))
			fail("commands: %s", strerror(errno));
	}
}

/* --- Content, piece by piece: the cache fills a room and publishes it, the lane takes a piece and gives it back --- */

static bool copying;  /* whether content goes to private memory */
static char *copied;
static struct slots *ring;
static char *buffer; /* of messages: a type, then `chunk` bytes */

static void acquire_slot(int which)
{
	if (content.sems >= 0) {
		struct sembuf one = {.sem_num = which, .sem_op = -1};
		struct timespec limit = limit_of(timeout_s);
		check(!(bounded ? semtimedop(content.sems, &one, 1, &limit) : semop(content.sems, &one, 1)), "semop");
	} else
		acquire(which ? &ring->full : &ring->free);
}

static void release_slot(int which)
{
	if (content.sems >= 0) {
		struct sembuf one = {.sem_num = which, .sem_op = 1};
		check(!semop(content.sems, &one, 1), "semop");
	} else
		release(which ? &ring->full : &ring->free);
}

static void open_content(bool first)
{
	buffer = malloc(sizeof(long) + content.ring.chunk);
	check(buffer, "malloc");
	memset(buffer, 1, sizeof(long) + content.ring.chunk); /* its pages, and a message type other than 0 */
	*(long *)buffer = 1;
	if (content.sems >= 0) {
		content.ring.slots = shmat(content.memory, NULL, 0);
		check(content.ring.slots != (void *)-1, "shmat");
	} else if (is(&content, "posix_shm"))
		map_ring(&content.ring, content.fds[0]);
	ring = content.ring.slots;
	if (ring && first)
		begin_ring(&content.ring);
	else if (ring)
		for (size_t at = 0; at < ring_size(&content.ring); at += 4096)
			(void)*((volatile char *)ring + at);
	if (copying)
		check((copied = malloc(content.ring.chunk)) != NULL, "malloc");
	if (bounded && (content.queue >= 0 || commands.queue >= 0)) {
		pthread_t thread;
		check(!pthread_create(&thread, NULL, watch, NULL), "pthread_create");
	}
}

static char *loan(void)
{
	if (!ring)
		return buffer + sizeof(long);
	acquire_slot(0);
	return ring_slot(&content.ring, ring->published);
}

static void publish(size_t count)
{
	char *data = buffer + sizeof(long);
	if (ring) {
		ring->lengths[ring->published % content.ring.depth] = count;
		ring->published++;
		release_slot(1);
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
		acquire_slot(1);
		*piece = ring_slot(&content.ring, ring->taken);
		return ring->lengths[ring->taken % content.ring.depth];
	}
	if (content.queue >= 0)
		return receive_sysv(content.queue, buffer, content.ring.chunk);
	if (is(&content, "posix_mq"))
		return receive_queue(content.fds[0], data, content.ring.chunk);
	if (bounded && (begins || is(&content, "fifo")))
		await(content.fds[0], POLLIN); /* as the harness does: the next reply may come over another connection */
	size_t count = read_some(content.fds[0], data, content.ring.chunk);
	while (begins && count < HEAD) /* a stream may hand the head out in parts */
		count += read_some(content.fds[0], data + count, content.ring.chunk - count);
	return count;
}

static void give_back(void)
{
	if (ring) {
		ring->taken++;
		release_slot(0);
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

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL };

/* A sealed memfd with the content of a file, made when the file is first asked for: transports/memfd.py. */
static int sealed(int fd, size_t size)
{
	static int made[2 * PATHS]; /* by descriptor; 0: none */
	check(fd < 2 * PATHS, "too many descriptors");
	if (!made[fd]) {
		int memory = memfd_create("content", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		off_t offset = 0;
		check(memory >= 0, "memfd_create");
		while ((size_t)offset < size)
			check(sendfile(memory, fd, &offset, size - offset) > 0, "sendfile");
		check(!fcntl(memory, F_ADD_SEALS, SEALS), "F_ADD_SEALS");
		made[fd] = memory;
	}
	return made[fd];
}

static bool passes_descriptors(void)
{
	return is(&content, "sendfile") || is(&content, "memfd");
}

static void answer(uint64_t id, int fd)
{
	struct stat file;
	check(!fstat(fd, &file), "fstat");
	struct {
		struct head head;
		uint64_t more;
	} first = {.head = {.id = id, .length = (uint64_t)file.st_size}};
	if (passes_descriptors()) {
		int passed = is(&content, "memfd") ? sealed(fd, (size_t)file.st_size) : fd;
		send_fds(content.fds[1], &first, sizeof first, &passed, 1);
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
		size_t left = file.st_size - sent, fits = content.ring.chunk - ahead;
		ssize_t count = left ? pread(fd, room + ahead, left < fits ? left : fits, sent) : 0;
		check(count > 0 || !left, "pread");
		publish(ahead + count);
		sent += count;
	}
}

static _Noreturn void serve(const char *root, const char *command, const char *rendezvous)
{
	struct sockaddr_un address;
	socklen_t size;
	int listener = meeting_point(rendezvous, &address, &size);
	check(!bind(listener, (struct sockaddr *)&address, size) && !listen(listener, 1), "bind");
	make_commands(command);
	clean_up = remove_channels;
	signal(SIGTERM, end_well);
	end_with_input();
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
		int file = find(root, path);
		check(file >= 0, path);
		answer(next.id, file);
	}
}

/* --- The lane: requests, and slices of them --- */

static bool verifying;
static int passed = -1; /* the descriptor of a file that came with a head */
static int sink = -1, control = -1; /* a socket whose other end a process reads, and where it gets those */

static bool ends_in_socket(void)
{
	return passes_descriptors() || is(&content, "splice");
}

static void deliver(size_t count)
{
	if (is(&content, "splice")) {
		splice_all(content.fds[0], NULL, sink, count);
		return;
	}
	off_t offset = 0;
	if (is(&content, "memfd") && (fcntl(passed, F_GET_SEALS) & SEALS) != SEALS)
		fail("the memfd is not sealed");
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
		if (passes_descriptors())
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

static uint64_t used(void)
{
	struct timespec time;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* One slice of load: harness/load/slices.py says when its window opens and closes. */
static void make_slice(const char *line)
{
	enum { MOST = 1 << 20 };
	static uint64_t latencies[MOST];
	static uint64_t positions[64], id;
	struct ask ask = read_ask(line);
	struct slice slice = {.latencies = latencies};
	uint64_t before = used(), all = 0, bytes = 0, bad = 0;
	int workload = ask.workload, begin = workloads[workload], length = workloads[workload + 1] - begin;
	verifying = ask.verify;
	if (control >= 0)
		begin_sink(workload, positions[workload]);
	while (slice.count < MOST) {
		uint64_t begun = now();
		bool wrong = false;
		size_t got = request(begin + (int)(positions[workload]++ % length), ++id, &wrong);
		uint64_t ended = now();
		bad += wrong;
		all++;
		bytes += got;
		if (ended < ask.opens)
			continue;
		if (!slice.opened) {
			slice.opened = ended;
			continue;
		}
		latencies[slice.count++] = ended - begun;
		slice.bytes += got;
		slice.closed = ended;
		if (ended >= ask.closes)
			break;
	}
	if (control >= 0)
		bad += end_sink(bytes);
	slice.busy = (double)(used() - before) / (double)(now() - ask.start);
	slice.outcomes[OK] = all - bad;
	slice.outcomes[WRONG] = bad;
	print_slice(&slice);
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
		make_slice(line);
	return 0;
}

static pid_t worker;

static void end_worker(int number)
{
	kill(worker, SIGKILL);
	end_well(number);
}

static int ask(const char *data, const char *rendezvous)
{
	int cache = meet(rendezvous);
	receive_channel(cache, &commands);
	make_content(data);
	check((worker = fork()) >= 0, "fork");
	if (!worker) {
		send_channel(cache, &content);
		_exit(work());
	}
	commands.queue = -1; /* it is the cache's, which removes it */
	clean_up = remove_channels;
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
