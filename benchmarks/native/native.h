/* What the programs in C share: native.c (lanes), pipeline.c (proxy and cache), gfclient.c (the load). */

#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { COMMAND = 512, HEAD = 64, PATHS = 4096, MOST_FDS = 4, MESSAGES = 10, READ = 1 << 20 };
enum { STATUS_OK, STATUS_NOT_FOUND, STATUS_ERROR };

struct command {
	uint64_t id;
	uint16_t lane, path; /* bytes of each in the text */
	char text[500];
};

struct head {
	uint64_t id, status, length, unused[5];
};

/* --- Failures, times, waits --- */

extern bool bounded; /* whether each wait ends after timeout_s */
extern double timeout_s;

void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void check(bool right, const char *what);
uint64_t now(void); /* ns, CLOCK_MONOTONIC */
struct timespec limit_of(double seconds);
struct timespec from_now(clockid_t clock); /* the timeout */
void await(int fd, short events);
void limit_waits(int socket); /* has the kernel end blocking calls, socket(7), which costs nothing a call */

/* --- A program that stands in for one of the harness --- */

extern void (*clean_up)(void); /* removes what would stay; may be NULL */
void end_well(int number);     /* a handler of signals */
void end_with_input(void);     /* has the program end when its standard input does */
uint64_t option(const char *text, const char *name, uint64_t other);
void check_options(const char *text, const char *known);
int meeting_point(const char *rendezvous, struct sockaddr_un *address, socklen_t *size);
int meet(const char *rendezvous); /* connects to the cache, which may be yet to come */
void send_fds(int socket, const void *data, size_t size, const int *fds, int count);
size_t receive_fds(int socket, void *data, size_t size, int *fds, int most); /* 0 where the other end has closed */

/* --- Mechanisms --- */

struct slots { /* the front of a ring in shared memory: transports/common/ring.py */
	uint64_t published, unused[7], taken, unused_too[7];
	sem_t free, full;
	uint64_t lengths[64];
};

struct ring {
	uint64_t chunk, depth, stride;
	struct slots *slots;
};

struct ring ring_of(const char *text, uint64_t usual_chunk); /* by the options chunk and depth */
size_t ring_size(const struct ring *ring);
int make_ring_memory(const struct ring *ring); /* the same memory as of shm_open(3), without a name */
void map_ring(struct ring *ring, int memory);
void begin_ring(struct ring *ring);
char *ring_slot(const struct ring *ring, uint64_t position);
void acquire(sem_t *sem);
void release(sem_t *sem);

int make_queue(uint64_t depth, uint64_t size);
void send_queue(int queue, const void *data, size_t count);
size_t receive_queue(int queue, void *room, size_t size);
size_t next_command(int queue, struct command *command); /* waits for it as long as it takes */

/* --- Files: those of the cache, and those that a load asks for --- */

int find(const char *root, const char *path); /* the descriptor, which stays open; -1 where there is no such file */

struct asked {
	char path[500];
	const char *data; /* its bytes; NULL of an empty file */
	size_t size;
};

extern struct asked asked[PATHS];
extern int workloads[64], workload_count; /* where each begins in `asked`; one more entry ends the last */
void read_workload(const char *list, const char *root);

/* --- Slices of load --- */

struct ask { /* what a line asks for; times in ns, CLOCK_MONOTONIC */
	int workload;
	uint64_t start, opens, closes;
	bool verify;
};

struct slice { /* what came of it: harness/load/slices.py */
	uint64_t opened, closed, count, bytes; /* of the window */
	uint64_t *latencies, *firsts;          /* of its requests, in ns; firsts may be NULL */
	uint64_t outcomes[7];                  /* of the whole slice: those of harness/load/tally.py */
	double busy;
};

enum { OK, FILE_NOT_FOUND, ERROR, INVALID, SHORT, WRONG, FAILED };

double value_of(const char *line, const char *key);
struct ask read_ask(const char *line);
void print_slice(struct slice *slice);
