/* The classic pipeline in C: a proxy that speaks GETFILE, and a cache. What does the same design cost without Python?
 *
 * It stands in for two programs of the harness, with their options and their lines of JSON, so that live blocks run it
 * beside them: `webproxy` and `simplecached` (docs/programs.md), one process each.
 *
 *     PIPELINE workers|boss simplecached -c ROOT -t THREADS --name RENDEZVOUS ...
 *     PIPELINE workers|boss webproxy -p PORT -t THREADS -n LANES --data posix_shm:chunk=...,... --name RENDEZVOUS ...
 *
 * workers: each worker of the proxy accepts clients, as in the harness. boss: one thread accepts, and hands them on.
 *
 * Commands of 512 bytes go over one POSIX queue. Content comes back over lanes: each is a ring in POSIX shared memory
 * with two semaphores, which a request leases. Every wait ends after --timeout, and one for the other program that lasts
 * so long ends this one. A client whose request comes in pieces holds up its worker, and a path need not be UTF-8.
 *
 * The two meet at an abstract Unix socket, unix(7), over which queue and memory go as descriptors.
 */

#include "native.h"
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <sys/uio.h>

enum { WORKERS = 1000, LANES = 1000, REQUEST = 4096, BACKLOG = 4096 };

static int queue = -1; /* of commands */
static int threads = 4, lane_count = 4;
static struct ring lanes[LANES];

static void start_threads(int count, void *(*work)(void *))
{
	for (int at = 0; at < count; at++) {
		pthread_t thread;
		check(!pthread_create(&thread, NULL, work, NULL), "pthread_create");
	}
}

/* --- The cache --- */

static const char *root = "";

static void answer(struct ring *lane, uint64_t id, int fd)
{
	struct stat file = {0};
	check(fd < 0 || !fstat(fd, &file), "fstat");
	struct head head = {.id = id, .status = fd < 0 ? STATUS_NOT_FOUND : STATUS_OK, .length = (uint64_t)file.st_size};
	off_t sent = 0;
	for (size_t ahead = HEAD; ahead || sent < file.st_size; ahead = 0) {
		struct slots *slots = lane->slots;
		acquire(&slots->free);
		char *room = ring_slot(lane, slots->published);
		memcpy(room, &head, ahead);
		size_t left = file.st_size - sent, fits = lane->chunk - ahead;
		ssize_t count = left ? pread(fd, room + ahead, left < fits ? left : fits, sent) : 0;
		check(count > 0 || !left, "pread");
		slots->lengths[slots->published++ % lane->depth] = ahead + count;
		release(&slots->full);
		sent += count;
	}
}

static void *answer_commands(void *unused)
{
	for (struct command next;;) {
		check(next_command(queue, &next) == COMMAND, "a command");
		char name[16] = "", path[sizeof next.text + 1] = "";
		memcpy(name, next.text, next.lane < sizeof name ? next.lane : 0);
		memcpy(path, next.text + next.lane, next.path);
		answer(&lanes[atoi(name)], next.id, find(root, path));
	}
	return unused;
}

static _Noreturn void serve_commands(const char *rendezvous)
{
	struct sockaddr_un address;
	socklen_t size;
	int listener = meeting_point(rendezvous, &address, &size);
	check(!bind(listener, (struct sockaddr *)&address, size) && !listen(listener, 1), "bind");
	queue = make_queue(MESSAGES, COMMAND);
	printf("{\"ready\": \"simplecached\"}\n");
	fflush(stdout);
	int proxy = accept4(listener, NULL, NULL, SOCK_CLOEXEC), memory;
	check(proxy >= 0, "accept4");
	send_fds(proxy, "", 1, &queue, 1);
	for (int at = 0; receive_fds(proxy, &lanes[at], sizeof *lanes, &memory, 1); at++) {
		map_ring(&lanes[at], memory);
		close(memory);
	}
	start_threads(threads, answer_commands);
	send_fds(proxy, "", 1, NULL, 0);
	for (;;)
		pause();
}

/* --- The proxy: lanes --- */

static pthread_mutex_t of_lanes = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t lane_freed = PTHREAD_COND_INITIALIZER;
static struct ring *free_lanes[LANES]; /* the last one used is the next one leased: its memory is warm */
static int free_count;

static struct ring *lease(void)
{
	struct timespec until = from_now(CLOCK_MONOTONIC);
	pthread_mutex_lock(&of_lanes);
	while (!free_count)
		if (pthread_cond_clockwait(&lane_freed, &of_lanes, CLOCK_MONOTONIC, &until))
			fail("no lane became free for %g s", timeout_s);
	struct ring *lane = free_lanes[--free_count];
	pthread_mutex_unlock(&of_lanes);
	return lane;
}

static void end_lease(struct ring *lane)
{
	pthread_mutex_lock(&of_lanes);
	free_lanes[free_count++] = lane;
	pthread_mutex_unlock(&of_lanes);
	pthread_cond_signal(&lane_freed);
}

static void make_lanes(int cache, const char *data)
{
	for (int at = 0; at < lane_count; at++) {
		struct ring *lane = &lanes[at];
		*lane = ring_of(data, 1 << 18);
		int memory = make_ring_memory(lane);
		send_fds(cache, lane, sizeof *lane, &memory, 1);
		map_ring(lane, memory);
		begin_ring(lane);
		close(memory);
		free_lanes[free_count++] = lane;
	}
	shutdown(cache, SHUT_WR);
	char mapped;
	if (!receive_fds(cache, &mapped, 1, NULL, 0))
		fail("the cache has ended");
}

/* --- The proxy: clients --- */

static int listener = -1;

static int take(struct ring *lane, char **piece)
{
	acquire(&lane->slots->full);
	*piece = ring_slot(lane, lane->slots->taken);
	return (int)lane->slots->lengths[lane->slots->taken % lane->depth];
}

static void give_back(struct ring *lane)
{
	lane->slots->taken++;
	release(&lane->slots->free);
}

/* Returns whether the client has taken all of it: a call takes less where SO_SNDTIMEO has passed, socket(7). */
static bool give(int client, const char *header, size_t ahead, const char *data, size_t count)
{
	struct iovec parts[] = {{(void *)header, ahead}, {(void *)data, count}};
	return writev(client, parts + !ahead, ahead ? 2 : 1) == (ssize_t)(ahead + count);
}

static void refuse(int client, const char *status)
{
	char reply[64];
	give(client, reply, snprintf(reply, sizeof reply, "GETFILE %s\r\n\r\n", status), "", 0);
}

/* Asks the cache for a file, and passes the reply on. A client that has gone is sent nothing more, and the lane is
 * emptied, for the next request. */
static void pass_on(int client, struct ring *lane, const char *path, size_t path_size)
{
	static _Atomic uint64_t ids;
	struct command command = {.id = ++ids, .path = (uint16_t)path_size};
	command.lane = (uint16_t)snprintf(command.text, sizeof command.text, "%d", (int)(lane - lanes));
	if (command.lane + path_size > sizeof command.text) {
		refuse(client, "ERROR");
		return;
	}
	memcpy(command.text + command.lane, path, path_size);
	send_queue(queue, &command, COMMAND);
	char *piece, header[64];
	int count = take(lane, &piece);
	struct head head;
	memcpy(&head, piece, HEAD);
	if (head.id != command.id)
		fail("the reply is to another request");
	if (head.status != STATUS_OK) {
		give_back(lane);
		refuse(client, head.status == STATUS_NOT_FOUND ? "FILE_NOT_FOUND" : "ERROR");
		return;
	}
	size_t ahead = snprintf(header, sizeof header, "GETFILE OK %lu\r\n\r\n", (unsigned long)head.length);
	bool there = give(client, header, ahead, piece + HEAD, count - HEAD);
	give_back(lane);
	for (size_t sent = count - HEAD; sent < head.length; sent += count) {
		count = take(lane, &piece);
		there = there && give(client, NULL, 0, piece, count);
		give_back(lane);
	}
}

/* Ends what is sent, then reads what still comes: with unread data close(2) would reset the connection. */
static void linger(int client)
{
	char any[4096];
	struct timeval limit = {.tv_sec = 1};
	shutdown(client, SHUT_WR);
	setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	while (read(client, any, sizeof any) > 0)
		;
}

/* The size of the path of a request, which ends with a blank line; 0 while more has to come, -1 where it is none. */
static int path_of(const char *request, size_t size)
{
	static const char begins[] = "GETFILE GET /";
	size_t known = sizeof begins - 1, at;
	if (memcmp(request, begins, size < known ? size : known))
		return -1;
	for (at = known; at < size && (unsigned char)request[at] > ' ' && request[at] != 127; at++)
		;
	if (at + 4 <= size && !memcmp(request + at, "\r\n\r\n", 4))
		return (int)(at - known + 1);
	bool may_end = at >= size || !memcmp(request + at, "\r\n\r\n", size - at < 4 ? size - at : 4);
	return may_end && size < REQUEST ? 0 : -1;
}

static void serve(int client)
{
	char request[REQUEST];
	size_t size = 0;
	int path_size = 0;
	while (!path_size) {
		ssize_t count = recv(client, request + size, sizeof request - size, 0);
		if (count <= 0)
			return;
		path_size = path_of(request, size += count);
	}
	const char *path = request + strlen("GETFILE GET ");
	if (path_size < 0) {
		refuse(client, "INVALID");
		linger(client);
		return;
	}
	struct ring *lane = lease();
	pass_on(client, lane, path, path_size);
	end_lease(lane);
	if (path + path_size + 4 < request + size)
		linger(client);
}

static int next_client(void)
{
	for (;;) {
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (client >= 0)
			return client;
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			fail("accept4: %s", strerror(errno));
	}
}

static pthread_mutex_t of_clients = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t client_came = PTHREAD_COND_INITIALIZER, client_left = PTHREAD_COND_INITIALIZER;
static int clients[BACKLOG];
static unsigned came, left;
static bool has_boss;

static void *accept_for_all(void *unused)
{
	for (;;) {
		int client = next_client();
		pthread_mutex_lock(&of_clients);
		while (came - left == BACKLOG)
			pthread_cond_wait(&client_left, &of_clients);
		clients[came++ % BACKLOG] = client;
		pthread_mutex_unlock(&of_clients);
		pthread_cond_signal(&client_came);
	}
	return unused;
}

static int from_boss(void)
{
	pthread_mutex_lock(&of_clients);
	while (came == left)
		pthread_cond_wait(&client_came, &of_clients);
	int client = clients[left++ % BACKLOG];
	pthread_mutex_unlock(&of_clients);
	pthread_cond_signal(&client_left);
	return client;
}

static void *serve_clients(void *unused)
{
	for (;;) {
		int client = has_boss ? from_boss() : next_client();
		serve(client);
		close(client);
	}
	return unused;
}

/* A listening socket, whose options its clients inherit: harness/pipeline/gfserver.py says what for. */
static int open_listener(int port, const char *congestion)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int one = 1, patience = (int)ceil(timeout_s);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(listener >= 0, "socket");
	check(!setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), "SO_REUSEADDR");
	check(!bind(listener, (struct sockaddr *)&address, sizeof address) && !listen(listener, BACKLOG), "bind, listen");
	limit_waits(listener);
	check(!setsockopt(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &patience, sizeof patience), "TCP_DEFER_ACCEPT");
	check(!setsockopt(listener, IPPROTO_TCP, TCP_CORK, &one, sizeof one), "TCP_CORK");
	if (strcmp(congestion, "system"))
		check(!setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, congestion, strlen(congestion)), "TCP_CONGESTION");
	socklen_t size = sizeof address;
	check(!getsockname(listener, (struct sockaddr *)&address, &size), "getsockname");
	return ntohs(address.sin_port);
}

static _Noreturn void serve_all(int port, const char *congestion, const char *data, const char *rendezvous)
{
	port = open_listener(port, congestion);
	int cache = meet(rendezvous);
	char ready;
	if (!receive_fds(cache, &ready, 1, &queue, 1))
		fail("the cache has ended");
	make_lanes(cache, data);
	start_threads(threads, serve_clients);
	if (has_boss)
		start_threads(1, accept_for_all);
	printf("{\"ready\": \"webproxy\", \"host\": \"127.0.0.1\", \"port\": %d}\n", port);
	fflush(stdout);
	for (;;)
		pause();
}

static int number(const char *option, const char *text, int most)
{
	char *end;
	long value = strtol(text, &end, 10);
	if (*end || value < 1 || value > most)
		fail("%s %s: must be a whole number from 1 to %d", option, text, most);
	return (int)value;
}

int main(int count, char **words)
{
	const char *data = "posix_shm", *command = "posix_mq", *rendezvous = "default", *congestion = "reno";
	int port = 0;
	if (count == 2 && !strcmp(words[1], "--version"))
		return printf("C, gcc %s\n", __VERSION__) < 0;
	if (count < 3)
		fail("usage: pipeline workers|boss webproxy|simplecached OPTION...");
	has_boss = !strcmp(words[1], "boss");
	for (int at = 3; at < count; at++) {
		const char *word = words[at];
		if (!strcmp(word, "--json") || !strcmp(word, "--until-eof"))
			continue; /* it can do nothing else */
		const char *value = ++at < count ? words[at] : "";
		if (!strcmp(word, "-c"))
			root = value;
		else if (!strcmp(word, "-p"))
			port = atoi(value);
		else if (!strcmp(word, "-t"))
			threads = number(word, value, WORKERS);
		else if (!strcmp(word, "-n"))
			lane_count = number(word, value, LANES);
		else if (!strcmp(word, "--command"))
			command = value;
		else if (!strcmp(word, "--data"))
			data = value;
		else if (!strcmp(word, "--name"))
			rendezvous = value;
		else if (!strcmp(word, "--congestion"))
			congestion = value;
		else if (!strcmp(word, "--timeout"))
			timeout_s = strtod(value, NULL);
		else if (strcmp(word, "--processes") || strcmp(value, "1"))
			fail("%s %s: not here", word, value);
	}
	if (strcmp(command, "posix_mq") || strcspn(data, ":") != 9 || strncmp(data, "posix_shm", 9))
		fail("commands over %s, content over %s: only posix_mq and posix_shm are here", command, data);
	check_options(data, " chunk depth ");
	bounded = true;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, end_well);
	end_with_input();
	if (!strcmp(words[2], "simplecached"))
		serve_commands(rendezvous);
	if (strcmp(words[2], "webproxy"))
		fail("%s: only webproxy and simplecached are here", words[2]);
	serve_all(port, congestion, data, rendezvous);
}
