/* SPDX-License-Identifier: Apache-2.0 */
/*
 * traffic CGROUP ALLOWED DENIED PORT DENY_ERRNO PAUSE_US
 *
 * Joins CGROUP and, until SIGTERM, connects and sends to an allowed and to a denied address, comparing each result with
 * what it must be. A line on stdin is answered with the count so far; at the end prints
 * {"calls": N, "wrong": N, "first": "what the first wrong one was"}. Must not know policies.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t ended;
static long calls, wrong;
static char first[128] = "";
static struct sockaddr_in address[2];
static int expected[2];
static int listener;

static void end(int signal_number)
{
	(void)signal_number;
	ended = 1;
}

static void check(const char *call, int which, int got)
{
	calls++;
	if (got == expected[which])
		return;
	if (!wrong++)
		snprintf(first, sizeof(first), "call %ld: %s to the %s address got errno %d", calls, call,
			 which ? "denied" : "allowed", got);
}

static int dial(int kind, int which)
{
	struct linger at_once = {1, 0};
	int fd = socket(AF_INET, kind, 0);
	int got = connect(fd, (void *)&address[which], sizeof(address[which])) ? errno : 0;

	if (kind == SOCK_STREAM) {
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
		if (!got)
			close(accept(listener, NULL, NULL));
	}
	close(fd);
	return got;
}

static int send_one(int fd, int which)
{
	return sendto(fd, "x", 1, 0, (void *)&address[which], sizeof(address[which])) == 1 ? 0 : errno;
}

static void one_round(int fd)
{
	for (int which = 0; which < 2; which++) {
		check("UDP connect", which, dial(SOCK_DGRAM, which));
		check("TCP connect", which, dial(SOCK_STREAM, which));
		for (int i = 0; i < 2; i++)
			check("sendto", which, send_one(fd, which));
	}
}

static void join(const char *cgroup)
{
	char path[1024];

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	int fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1) {
		perror(path);
		exit(1);
	}
	close(fd);
}

static void answer_if_asked(void)
{
	struct pollfd asked = {.fd = 0, .events = POLLIN};
	char line[64];

	if (poll(&asked, 1, 0) == 1 && read(0, line, sizeof(line)) > 0) {
		printf("%ld\n", calls);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	if (argc != 7)
		return 2;
	for (int which = 0; which < 2; which++) {
		address[which].sin_family = AF_INET;
		address[which].sin_port = htons((uint16_t)atoi(argv[4]));
		inet_pton(AF_INET, argv[2 + which], &address[which].sin_addr);
	}
	expected[1] = atoi(argv[5]);
	struct timespec pause = {0, atol(argv[6]) * 1000};
	int reuse = 1;

	listener = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
	if (bind(listener, (void *)&address[0], sizeof(address[0])) || listen(listener, 64)) {
		perror("listen");
		return 1;
	}
	signal(SIGTERM, end);
	join(argv[1]);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	while (!ended) {
		one_round(fd);
		answer_if_asked();
		nanosleep(&pause, NULL);
	}
	printf("{\"calls\": %ld, \"wrong\": %ld, \"first\": \"%s\"}\n", calls, wrong, first);
	return 0;
}
