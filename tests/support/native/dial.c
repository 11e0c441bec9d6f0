/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dial OPEN SHUT [wait]
 *
 * Calls both ports of loopback, before anything else, and prints one line: what connect() of TCP and sendto() of UDP
 * got, IPv4 and IPv6, first at OPEN, then, behind a slash, at SHUT. "0" is success. With "wait" it stays and does it
 * again at each SIGUSR1. Must not know policies.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KINDS 4

static int call(int family, int type, unsigned short port)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	const struct sockaddr *to = family == AF_INET ? (void *)&v4 : (void *)&v6;
	socklen_t size = family == AF_INET ? sizeof(v4) : sizeof(v6);
	int fd = socket(family, type | SOCK_CLOEXEC, 0), got;

	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0)
		return errno;
	if (type == SOCK_STREAM)
		got = connect(fd, to, size) ? errno : 0;
	else
		got = sendto(fd, "?", 1, 0, to, size) < 0 ? errno : 0;
	close(fd);
	return got;
}

static void dial(unsigned short port, int got[KINDS])
{
	got[0] = call(AF_INET, SOCK_STREAM, port);
	got[1] = call(AF_INET6, SOCK_STREAM, port);
	got[2] = call(AF_INET, SOCK_DGRAM, port);
	got[3] = call(AF_INET6, SOCK_DGRAM, port);
}

static void dial_and_tell(unsigned short open_port, unsigned short shut_port)
{
	int got[2 * KINDS], size = 0;
	char line[512];

	dial(open_port, got);
	dial(shut_port, got + KINDS);
	for (int i = 0; i < 2 * KINDS; i++)
		size += snprintf(line + size, sizeof(line) - (size_t)size, "%s%s",
				 i == KINDS ? " / "
				 : i	    ? " "
					    : "",
				 strerrorname_np(got[i]));
	line[size++] = '\n';
	if (write(STDOUT_FILENO, line, (size_t)size) != size)
		exit(1);
}

int main(int argc, char **argv)
{
	sigset_t again;
	int number;

	if (argc < 3)
		return 2;
	unsigned short open_port = (unsigned short)atoi(argv[1]), shut_port = (unsigned short)atoi(argv[2]);
	sigemptyset(&again);
	sigaddset(&again, SIGUSR1);
	if (argc > 3)
		sigprocmask(SIG_BLOCK, &again, NULL);
	dial_and_tell(open_port, shut_port);
	while (argc > 3 && sigwait(&again, &number) == 0)
		dial_and_tell(open_port, shut_port);
	return 0;
}
