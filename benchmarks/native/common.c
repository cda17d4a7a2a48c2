#include "native.h"
#include <mqueue.h>
#include <stdarg.h>

/* --- Failures, times, waits --- */

bool bounded;
double timeout_s = 5;

void fail(const char *format, ...)
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

void check(bool right, const char *what)
{
	if (!right)
		fail("%s: %s", what, strerror(errno));
}

uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

struct timespec limit_of(double seconds)
{
	return (struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
}

struct timespec from_now(clockid_t clock)
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

void await(int fd, short events)
{
	struct pollfd one = {.fd = fd, .events = events};
	if (poll(&one, 1, (int)(timeout_s * 1000)) < 1)
		fail("nothing came, or nothing was taken, for %g s", timeout_s);
}

void limit_waits(int socket)
{
	struct timespec left = limit_of(timeout_s);
	struct timeval limit = {left.tv_sec, left.tv_nsec / 1000};
	if (!bounded)
		return;
	check(!setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
	check(!setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), "SO_SNDTIMEO");
}

/* --- A program that stands in for one of the harness --- */

void (*clean_up)(void);

void end_well(int number)
{
	if (clean_up)
		clean_up();
	_exit(number == SIGTERM ? 0 : 1);
}

static void *read_input(void *unused)
{
	char any[256];
	while (read(0, any, sizeof any) > 0)
		;
	end_well(SIGTERM);
	return unused;
}

void end_with_input(void)
{
	pthread_t thread;
	check(!pthread_create(&thread, NULL, read_input, NULL), "pthread_create");
}

/* The value of an option in NAME:option=value,...; `other` where it is not there. Sizes may end with KiB or MiB. */
uint64_t option(const char *text, const char *name, uint64_t other)
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

void check_options(const char *text, const char *known)
{
	for (const char *at = strchr(text, ':'); at; at = strchr(at + 1, ',')) {
		char name[32];
		snprintf(name, sizeof name, " %.*s ", (int)strcspn(at + 1, "="), at + 1);
		if (!strstr(known, name))
			fail("%s: there is no option%s", text, *known ? name : "");
	}
}

int meeting_point(const char *rendezvous, struct sockaddr_un *address, socklen_t *size)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	int count = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "th-native-%d-%s", getuid(), rendezvous);
	*size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + count);
	int end = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	check(end >= 0, "socket");
	return end;
}

int meet(const char *rendezvous)
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
	return cache;
}

void send_fds(int socket, const void *data, size_t size, const int *fds, int count)
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

size_t receive_fds(int socket, void *data, size_t size, int *fds, int most)
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

/* --- A ring in shared memory --- */

struct ring ring_of(const char *text, uint64_t usual_chunk)
{
	struct ring ring = {.chunk = option(text, "chunk", usual_chunk), .depth = option(text, "depth", 4)};
	ring.stride = (ring.chunk + 4095) / 4096 * 4096;
	if (ring.chunk <= HEAD)
		fail("%s: chunk must be over %d", text, HEAD);
	if (ring.depth > 64)
		fail("depth=%lu: at most 64 here", (unsigned long)ring.depth);
	return ring;
}

size_t ring_size(const struct ring *ring)
{
	return 8192 + ring->depth * ring->stride;
}

int make_ring_memory(const struct ring *ring)
{
	int memory = memfd_create("native", MFD_CLOEXEC);
	check(memory >= 0 && !posix_fallocate(memory, 0, (off_t)ring_size(ring)), "shared memory");
	return memory;
}

void map_ring(struct ring *ring, int memory)
{
	ring->slots = mmap(NULL, ring_size(ring), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory, 0);
	check(ring->slots != MAP_FAILED, "mapping");
}

void begin_ring(struct ring *ring)
{
	memset(ring->slots, 0, ring_size(ring));
	check(!sem_init(&ring->slots->free, 1, (unsigned)ring->depth), "sem_init");
	check(!sem_init(&ring->slots->full, 1, 0), "sem_init");
}

char *ring_slot(const struct ring *ring, uint64_t position)
{
	return (char *)ring->slots + 8192 + position % ring->depth * ring->stride;
}

void acquire(sem_t *sem)
{
	if (!bounded)
		check(!sem_wait(sem), "sem_wait");
	else if (sem_trywait(sem)) {
		struct timespec until = from_now(CLOCK_MONOTONIC);
		check(!sem_clockwait(sem, CLOCK_MONOTONIC, &until), "sem_clockwait");
	}
}

void release(sem_t *sem)
{
	check(!sem_post(sem), "sem_post");
}

/* --- POSIX queues --- */

int make_queue(uint64_t depth, uint64_t size)
{
	char name[64];
	struct mq_attr sizes = {.mq_maxmsg = (long)depth, .mq_msgsize = (long)size};
	snprintf(name, sizeof name, "/th-native-%d", getpid());
	mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &sizes);
	check(queue >= 0, "mq_open");
	mq_unlink(name);
	return queue;
}

void send_queue(int queue, const void *data, size_t count)
{
	if (bounded) {
		struct timespec until = from_now(CLOCK_REALTIME);
		check(!mq_timedsend(queue, data, count, 0, &until), "mq_timedsend");
	} else
		check(!mq_send(queue, data, count, 0), "mq_send");
}

static ssize_t receive_once(int queue, void *room, size_t size)
{
	if (!bounded)
		return mq_receive(queue, room, size, NULL);
	struct timespec until = from_now(CLOCK_REALTIME);
	return mq_timedreceive(queue, room, size, NULL, &until);
}

size_t receive_queue(int queue, void *room, size_t size)
{
	ssize_t count = receive_once(queue, room, size);
	check(count >= 0, "mq_receive");
	return count;
}

size_t next_command(int queue, struct command *command)
{
	for (;;) {
		ssize_t count = receive_once(queue, command, COMMAND);
		if (count >= 0)
			return count;
		if (errno != ETIMEDOUT && errno != EINTR)
			fail("commands: %s", strerror(errno));
	}
}

/* --- Files --- */

static struct {
	char path[500];
	int fd;
} files[PATHS];
static pthread_mutex_t of_files = PTHREAD_MUTEX_INITIALIZER;

static int find_locked(const char *root, const char *path)
{
	size_t at = 5381;
	for (const char *letter = path; *letter; letter++)
		at = at * 33 + (unsigned char)*letter;
	for (at %= PATHS; *files[at].path; at = (at + 1) % PATHS)
		if (!strcmp(files[at].path, path))
			return files[at].fd;
	char whole[4096];
	snprintf(whole, sizeof whole, "%s%s", root, path);
	int fd = open(whole, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	static int count;
	if (++count == PATHS)
		fail("more than %d files", PATHS - 1);
	snprintf(files[at].path, sizeof files[at].path, "%s", path);
	return files[at].fd = fd;
}

int find(const char *root, const char *path)
{
	pthread_mutex_lock(&of_files);
	int fd = find_locked(root, path);
	pthread_mutex_unlock(&of_files);
	return fd;
}

struct asked asked[PATHS];
int workloads[64], workload_count;

void read_workload(const char *list, const char *root)
{
	char line[600], whole[4096];
	FILE *lines = fopen(list, "r");
	check(lines, list);
	int count = workloads[workload_count++];
	while (fgets(line, sizeof line, lines)) {
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
	fclose(lines);
}

/* --- Slices of load --- */

double value_of(const char *line, const char *key)
{
	const char *found = strstr(line, key);
	return found ? strtod(found + strlen(key) + 2, NULL) : 0;
}

struct ask read_ask(const char *line)
{
	struct ask ask = {.start = now(), .workload = (int)value_of(line, "\"workload\"")};
	ask.opens = ask.start + (uint64_t)(value_of(line, "\"lead_in\"") * 1e9);
	ask.closes = ask.opens + (uint64_t)(value_of(line, "\"window\"") * 1e9);
	ask.verify = strstr(line, "\"verify\": true") != NULL;
	if (ask.workload >= workload_count)
		fail("there is no workload %d", ask.workload);
	return ask;
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

static double median_us(uint64_t *times, uint64_t count)
{
	if (!times || !count)
		return 0;
	qsort(times, count, sizeof *times, ascending);
	return (double)times[(count - 1) / 2] / 1e3;
}

void print_slice(struct slice *slice)
{
	static const char *const names[] = {"OK", "FILE_NOT_FOUND", "ERROR", "INVALID", "short", "wrong", "failed"};
	const uint64_t *latencies = slice->latencies;
	uint64_t all = 0;
	printf("{\"slice\": {\"opened_ns\": %lu, \"seconds\": %.9f, \"requests\": %lu, \"content_bytes\": %lu, "
	       "\"latency_p50_us\": %.3f, \"first_byte_p50_us\": %.3f, \"busy\": %.3f, ",
	       (unsigned long)slice->opened, (double)(slice->closed - slice->opened) / 1e9, (unsigned long)slice->count,
	       (unsigned long)slice->bytes, median_us(slice->latencies, slice->count),
	       median_us(slice->firsts, slice->count), slice->busy < 1 ? slice->busy : 1);
	for (int outcome = 0; outcome <= FAILED; outcome++) {
		printf("\"%s\": %lu, ", names[outcome], (unsigned long)slice->outcomes[outcome]);
		all += slice->outcomes[outcome];
	}
	printf("\"all_requests\": %lu, \"histogram\": [", (unsigned long)all);
	for (uint64_t at = 0, same = 1; at < slice->count; at++, same++)
		if (at + 1 == slice->count || upper_bound(latencies[at]) != upper_bound(latencies[at + 1])) {
			printf("%s[%lu, %lu]", at + 1 == same ? "" : ", ", (unsigned long)upper_bound(latencies[at]), (unsigned long)same);
			same = 0;
		}
	printf("]}}\n");
	fflush(stdout);
}
