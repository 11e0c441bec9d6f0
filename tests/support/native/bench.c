/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench CGROUP|- PORT
 *
 * Joins CGROUP and measures: for each line "OPERATION COUNT" on stdin, does OPERATION COUNT times and prints the
 * nanoseconds it took. Operations: sendto (receive queue full), sendto-drained, connect (UDP), tcp (socket, connect,
 * accept, close). All on 127.0.0.1. Must not know policies.
 */
#define _GNU_SOURCE
#include "measure.h"
#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

static struct sockaddr_in target;
static int receiver, sender, connector, listener;

static void send_one(void)
{
	if (sendto(sender, "12345678", 8, 0, (void *)&target, sizeof(target)) != 8)
		die("sendto");
}

static void send_and_receive(void)
{
	char byte[16];

	send_one();
	if (recv(receiver, byte, sizeof(byte), 0) < 0)
		die("recv");
}

static void connect_udp(void)
{
	if (connect(connector, (void *)&target, sizeof(target)))
		die("connect");
}

static void tcp_cycle(void)
{
	struct linger at_once = {1, 0};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (void *)&target, sizeof(target)))
		die("connect");
	int accepted = accept(listener, NULL, NULL);
	setsockopt(accepted, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(accepted);
	close(fd);
}

static void drain(void)
{
	char byte[16];

	while (recv(receiver, byte, sizeof(byte), MSG_DONTWAIT) >= 0)
		;
}

static void open_all(const char *port)
{
	target.sin_family = AF_INET;
	target.sin_port = htons((uint16_t)atoi(port));
	target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	receiver = socket(AF_INET, SOCK_DGRAM, 0);
	sender = socket(AF_INET, SOCK_DGRAM, 0);
	connector = socket(AF_INET, SOCK_DGRAM, 0);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	int reuse = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
	if (bind(receiver, (void *)&target, sizeof(target)) || bind(listener, (void *)&target, sizeof(target)) ||
	    listen(listener, 64))
		die("bind");
}

static int64_t measure(const char *operation, long count)
{
	void (*one)(void) = !strcmp(operation, "sendto")	   ? send_one
			    : !strcmp(operation, "sendto-drained") ? send_and_receive
			    : !strcmp(operation, "connect")	   ? connect_udp
								   : tcp_cycle;

	drain();
	if (one == send_one) /* fill the receive queue first */
		for (int i = 0; i < 2000; i++)
			send_one();
	int64_t start = now_ns();
	for (long i = 0; i < count; i++)
		one();
	return now_ns() - start;
}

int main(int argc, char **argv)
{
	char operation[32];
	long count;

	if (argc != 3)
		return 2;
	if (strcmp(argv[1], "-"))
		join(argv[1]);
	open_all(argv[2]);
	while (scanf("%31s %ld", operation, &count) == 2) {
		printf("%lld\n", (long long)measure(operation, count));
		fflush(stdout);
	}
	return 0;
}
