/* The load in C: it stands in for `harness gfclient --slices` (docs/programs.md), in a closed loop.
 *
 *     GFCLIENT load gfclient --discard|--copy -w WORKLOAD... --verify ROOT --slices ...
 *
 * A thread for each request that is under way at a time, whatever --processes says: no interpreter's lock holds up
 * threads here. All threads count in one window, as a process of the harness does.
 */

#include "native.h"
#include <netinet/in.h>
#include <arpa/inet.h>

enum { MOST = 1 << 20, CLIENTS = 4096, FIRST_READ = 8192 };

static bool copying;
static struct ask ask;
static struct sockaddr_in server = {.sin_family = AF_INET};
static _Atomic uint64_t following[64]; /* by workload: how many requests there have been */
static _Atomic uint64_t outcomes[7];

static struct client {
	pthread_t thread;
	char *room;   /* READ bytes */
	double cpu_ns;
} clients[CLIENTS];

static struct seen { /* a request that ended from the instant `opens` on */
	uint64_t ended, begun, first, bytes;
} seen[MOST];
static _Atomic uint64_t seen_count;
static _Atomic bool late, over; /* whether a request has ended at or after `closes`; whether the window has closed */

/* Reads the header of a reply into `room`, and what has come behind it. Returns how many bytes have come in all; sets
 * *ahead to the size of the header, *length to that of the content. 0: there is no whole header. */
static size_t read_header(int socket, char *room, size_t *ahead, uint64_t *length, int *outcome, uint64_t *first)
{
	static const char *const refusals[] = {"FILE_NOT_FOUND", "ERROR", "INVALID"};
	size_t got = 0;
	char *end = NULL;
	*first = 0;
	while (!end) {
		ssize_t count = recv(socket, room + got, FIRST_READ - got, 0);
		if (count <= 0)
			return 0;
		*first = *first ? *first : now();
		end = memmem(room, got += count, "\r\n\r\n", 4);
	}
	*end = 0;
	*ahead = end + 4 - room;
	*outcome = WRONG;
	if (sscanf(room, "GETFILE OK %lu", length) == 1)
		*outcome = OK;
	for (int at = 0; at < 3; at++)
		if (!strncmp(room, "GETFILE ", 8) && !strcmp(room + 8, refusals[at]))
			*outcome = FILE_NOT_FOUND + at;
	return got;
}

/* Makes one request. Returns its outcome. */
static int request(const struct asked *file, char *room, struct seen *one)
{
	char text[600];
	struct timeval limit = {.tv_sec = (time_t)timeout_s};
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), outcome = FAILED;
	check(client >= 0, "socket");
	setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	size_t size = snprintf(text, sizeof text, "GETFILE GET %s\r\n\r\n", file->path), ahead = 0, got;
	uint64_t length = 0;
	if (connect(client, (struct sockaddr *)&server, sizeof server) || send(client, text, size, MSG_NOSIGNAL) != (ssize_t)size)
		goto ended;
	if (!(got = read_header(client, room, &ahead, &length, &outcome, &one->first)))
		goto ended;
	ssize_t here = (ssize_t)(got - ahead);
	for (const char *piece = room + ahead;; piece = room) {
		if (ask.verify && here && (one->bytes + here > file->size || memcmp(piece, file->data + one->bytes, here)))
			outcome = WRONG;
		one->bytes += here;
		if (one->bytes >= length && !one->ended)
			one->ended = now();
		here = recv(client, room, READ, copying || ask.verify ? 0 : MSG_TRUNC);
		if (here <= 0)
			break;
	}
	if (outcome == OK && one->bytes != length)
		outcome = one->bytes < length ? SHORT : WRONG;
ended:
	close(client);
	one->ended = one->ended ? one->ended : now();
	return outcome;
}

static void count_in_window(const struct seen *one)
{
	if (one->ended >= ask.closes)
		late = true;
	uint64_t at = seen_count++;
	if (at >= MOST)
		fail("over %d requests in a window: take a shorter one", MOST);
	seen[at] = *one;
	if (late && at)
		over = true;
}

static void *make_requests(void *own)
{
	struct client *client = own;
	int begin = workloads[ask.workload], length = workloads[ask.workload + 1] - begin;
	while (!over) {
		struct seen one = {.begun = now()};
		int outcome = request(&asked[begin + (int)(following[ask.workload]++ % length)], client->room, &one);
		outcomes[outcome]++;
		bool failed = outcome == FAILED || outcome == ERROR; /* no end of a window, but it closes one that is due */
		if (failed && one.ended >= ask.closes)
			over = true;
		else if (!failed && one.ended >= ask.opens)
			count_in_window(&one);
	}
	struct timespec time;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	client->cpu_ns = (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
	return NULL;
}

static int by_end(const void *one, const void *other)
{
	uint64_t a = ((const struct seen *)one)->ended, b = ((const struct seen *)other)->ended;
	return (a > b) - (a < b);
}

static void make_slice(const char *line)
{
	static uint64_t latencies[MOST], firsts[MOST];
	struct slice slice = {.latencies = latencies, .firsts = firsts};
	int count = (int)value_of(line, "\"clients\"");
	ask = read_ask(line);
	server.sin_port = htons((uint16_t)value_of(line, "\"port\""));
	if (count < 1 || count > CLIENTS || value_of(line, "\"rate\"") > 0)
		fail("%d clients, rate %g: 1 to %d clients are here, in a closed loop", count, value_of(line, "\"rate\""), CLIENTS);
	seen_count = 0;
	late = over = false;
	for (int outcome = 0; outcome <= FAILED; outcome++)
		outcomes[outcome] = 0;
	for (struct client *one = clients; one < clients + count; one++) {
		check(one->room || (one->room = malloc(READ)), "malloc");
		check(!pthread_create(&one->thread, NULL, make_requests, one), "pthread_create");
	}
	for (struct client *one = clients; one < clients + count; one++) {
		pthread_join(one->thread, NULL);
		double busy = one->cpu_ns / (double)(now() - ask.start);
		slice.busy = busy > slice.busy ? busy : slice.busy;
	}
	qsort(seen, seen_count, sizeof *seen, by_end);
	slice.opened = slice.closed = seen_count ? seen[0].ended : ask.opens;
	for (uint64_t at = 1; at < seen_count; at++) {
		slice.closed = seen[at].ended;
		slice.bytes += seen[at].bytes;
		latencies[slice.count] = seen[at].ended - seen[at].begun;
		firsts[slice.count++] = seen[at].first - seen[at].begun;
		if (slice.closed >= ask.closes)
			break;
	}
	for (int outcome = 0; outcome <= FAILED; outcome++)
		slice.outcomes[outcome] = outcomes[outcome];
	print_slice(&slice);
}

int main(int count, char **words)
{
	const char *root = "", *lists[63];
	int list_count = 0;
	if (count < 3 || strcmp(words[2], "gfclient"))
		fail("usage: gfclient load gfclient OPTION...");
	for (int at = 3; at < count; at++) {
		const char *word = words[at];
		if (!strcmp(word, "--json") || !strcmp(word, "--slices") || !strcmp(word, "--discard"))
			continue;
		if (!strcmp(word, "--copy")) {
			copying = true;
			continue;
		}
		const char *value = ++at < count ? words[at] : "";
		if (!strcmp(word, "--verify"))
			root = value;
		else if (!strcmp(word, "-w") && list_count < 63)
			lists[list_count++] = value;
		else if (!strcmp(word, "--timeout"))
			timeout_s = strtod(value, NULL);
		else if (strcmp(word, "--processes"))
			fail("%s %s: not here", word, value);
	}
	for (int list = 0; list < list_count; list++)
		read_workload(lists[list], root);
	inet_pton(AF_INET, "127.0.0.1", &server.sin_addr);
	signal(SIGTERM, end_well);
	static char line[4096];
	printf("{\"ready\": \"gfclient\"}\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin))
		make_slice(line);
	return 0;
}
