/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench CGROUP|- PORT
 *
 * Joins CGROUP and measures: for each line "OPERATION COUNT" on stdin, does OPERATION COUNT times and prints the
 * nanoseconds it took. Operations: sendto (receive queue full), sendto-drained, send (connected, queue full), connect
 * (UDP), tcp (socket, connect, accept, close), bind (UDP socket, bind to port 0, close); each on 127.0.0.1, or on ::1
 * with a 6 behind its name. Must not know policies.
 */
#define _GNU_SOURCE
#include "measure.h"
#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

/* One family: where calls go to, and the sockets that make and take them. */
struct side {
	struct sockaddr_storage target, any_port;
	socklen_t length;
	int receiver, sender, connected, connector, listener;
};

static struct side v4, v6, *at;

static void send_one(void)
{
	if (sendto(at->sender, "12345678", 8, 0, (void *)&at->target, at->length) != 8)
		die("sendto");
}

static void send_connected(void)
{
	if (send(at->connected, "12345678", 8, 0) != 8)
		die("send");
}

static void send_and_receive(void)
{
	char byte[16];

	send_one();
	if (recv(at->receiver, byte, sizeof(byte), 0) < 0)
		die("recv");
}

static void connect_udp(void)
{
	if (connect(at->connector, (void *)&at->target, at->length))
		die("connect");
}

static void tcp_cycle(void)
{
	struct linger at_once = {1, 0};
	int fd = socket(at->target.ss_family, SOCK_STREAM, 0);

	if (connect(fd, (void *)&at->target, at->length))
		die("connect");
	int accepted = accept(at->listener, NULL, NULL);
	setsockopt(accepted, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(accepted);
	close(fd);
}

static void bind_cycle(void)
{
	int fd = socket(at->target.ss_family, SOCK_DGRAM, 0);

	if (bind(fd, (void *)&at->any_port, at->length))
		die("bind");
	close(fd);
}

static const struct operation {
	const char *name;
	void (*one)(void);
} operations[] = {
	{"sendto", send_one},	  {"sendto-drained", send_and_receive},
	{"send", send_connected}, {"connect", connect_udp},
	{"tcp", tcp_cycle},	  {"bind", bind_cycle},
};

static void drain(void)
{
	char byte[16];

	while (recv(at->receiver, byte, sizeof(byte), MSG_DONTWAIT) >= 0)
		;
}

static void open_side(struct side *side)
{
	int family = side->target.ss_family, reuse = 1;

	at = side;
	side->receiver = socket(family, SOCK_DGRAM, 0);
	side->sender = socket(family, SOCK_DGRAM, 0);
	side->connected = socket(family, SOCK_DGRAM, 0);
	side->connector = socket(family, SOCK_DGRAM, 0);
	side->listener = socket(family, SOCK_STREAM, 0);
	setsockopt(side->listener, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
	if (bind(side->receiver, (void *)&side->target, side->length) ||
	    bind(side->listener, (void *)&side->target, side->length) || listen(side->listener, 64) ||
	    connect(side->connected, (void *)&side->target, side->length))
		die("open");
}

static void open_both(uint16_t port)
{
	struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 loopback6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};

	v4.length = sizeof(loopback);
	v6.length = sizeof(loopback6);
	memcpy(&v4.any_port, &loopback, sizeof(loopback));
	memcpy(&v6.any_port, &loopback6, sizeof(loopback6));
	loopback.sin_port = loopback6.sin6_port = htons(port);
	memcpy(&v4.target, &loopback, sizeof(loopback));
	memcpy(&v6.target, &loopback6, sizeof(loopback6));
	open_side(&v4);
	open_side(&v6);
}

static const struct operation *find(char *name)
{
	size_t length = strlen(name);

	at = name[length - 1] == '6' ? &v6 : &v4;
	if (at == &v6)
		name[length - 1] = '\0';
	for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++)
		if (!strcmp(operations[i].name, name))
			return &operations[i];
	fprintf(stderr, "%s: no such operation\n", name);
	exit(2);
}

static int64_t measure(char *name, long count)
{
	const struct operation *operation = find(name);

	drain();
	if (operation->one == send_one || operation->one == send_connected) /* fill the receive queue first */
		for (int i = 0; i < 2000; i++)
			operation->one();
	int64_t start = now_ns();
	for (long i = 0; i < count; i++)
		operation->one();
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
	open_both((uint16_t)atoi(argv[2]));
	while (scanf("%31s %ld", operation, &count) == 2) {
		printf("%lld\n", (long long)measure(operation, count));
		fflush(stdout);
	}
	return 0;
}
