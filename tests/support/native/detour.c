/* SPDX-License-Identifier: Apache-2.0 */
/*
 * detour CGROUP ADDRESS:PORT NAME SERVER_PORT SERVER_NAME
 *
 * Joins CGROUP, serves on SERVER_PORT of every address (TCP and UDP) and on the abstract UNIX name SERVER_NAME, and
 * measures calls to ADDRESS:PORT and the abstract NAME, which must lead there. For each line "OPERATION COUNT" on
 * stdin: does OPERATION COUNT times and prints the nanoseconds it took. Client and server are one thread, so that
 * nothing waits for a scheduler. Must not know policies, or what makes the one lead to the other.
 */
#define _GNU_SOURCE
#include "measure.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CHUNK 65536
#define MEBIBYTE 1048576

static struct sockaddr_in asked;
static struct sockaddr_un asked_name;
static socklen_t asked_name_length;
static int tcp_listener, unix_listener, udp_server, udp_client;
static char buffer[CHUNK];

static int make(int family, int type)
{
	int fd = socket(family, type, 0);

	if (fd < 0)
		die("socket");
	return fd;
}

static void connect_asked(int fd)
{
	if (connect(fd, (void *)&asked, sizeof(asked)))
		die("connect");
}

static int accept_on(int listener)
{
	int fd = accept(listener, NULL, NULL);

	if (fd < 0)
		die("accept");
	return fd;
}

/* Without a FIN: nothing is left in TIME_WAIT, however many connections there are. */
static void abort_connection(int fd)
{
	struct linger at_once = {1, 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static void check(ssize_t done, ssize_t wanted, const char *what)
{
	if (done != wanted)
		die(what);
}

static void check_address(const struct sockaddr_in *seen, const char *what)
{
	if (seen->sin_addr.s_addr == asked.sin_addr.s_addr && seen->sin_port == asked.sin_port)
		return;
	fprintf(stderr, "%s: shows another address than was asked for\n", what);
	exit(1);
}

/* A connection to the server, in both its ends. */
struct connection {
	int client;
	int server;
};

static struct connection open_connection(void)
{
	struct connection made = {.client = make(AF_INET, SOCK_STREAM)};
	struct sockaddr_in peer;
	socklen_t length = sizeof(peer);
	int on = 1;

	connect_asked(made.client);
	made.server = accept_on(tcp_listener);
	if (getpeername(made.client, (void *)&peer, &length))
		die("getpeername");
	check_address(&peer, "getpeername");
	setsockopt(made.client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(made.server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return made;
}

static void close_connection(const struct connection *connection)
{
	abort_connection(connection->server);
	abort_connection(connection->client);
}

/* Each of these does its operation `count` times and returns how long that took. */

static int64_t tcp_cycles(long count)
{
	int64_t start = now_ns();

	for (long i = 0; i < count; i++) {
		struct connection made = {.client = make(AF_INET, SOCK_STREAM)};

		connect_asked(made.client);
		made.server = accept_on(tcp_listener);
		close_connection(&made);
	}
	return now_ns() - start;
}

static int64_t tcp_connects(long count)
{
	int64_t took = 0;

	for (long i = 0; i < count; i++) {
		struct connection made = {.client = make(AF_INET, SOCK_STREAM)};
		int64_t start = now_ns();

		connect_asked(made.client);
		took += now_ns() - start;
		made.server = accept_on(tcp_listener);
		close_connection(&made);
	}
	return took;
}

static int64_t tcp_exchanges(long count)
{
	struct connection made = open_connection();
	int64_t start = now_ns(), took;

	for (long i = 0; i < count; i++) {
		check(send(made.client, buffer, 64, 0), 64, "send");
		check(recv(made.server, buffer, 64, MSG_WAITALL), 64, "recv");
		check(send(made.server, buffer, 64, 0), 64, "send");
		check(recv(made.client, buffer, 64, MSG_WAITALL), 64, "recv");
	}
	took = now_ns() - start;
	close_connection(&made);
	return took;
}

/* Sends and receives as much as goes at once, and sleeps only when neither does: something between the ends is slow. */
static void transfer(const struct connection *connection, long long bytes)
{
	struct pollfd ends[2] = {{.fd = connection->client, .events = POLLOUT},
				 {.fd = connection->server, .events = POLLIN}};
	long long sent = 0, received = 0;

	while (received < bytes) {
		ssize_t out = 0, in;

		if (sent < bytes)
			out = send(connection->client, buffer, CHUNK, MSG_DONTWAIT);
		in = recv(connection->server, buffer, CHUNK, MSG_DONTWAIT);
		if (out > 0)
			sent += out;
		if (in > 0)
			received += in;
		if (!in)
			die("recv");
		if (out <= 0 && in < 0) {
			ends[0].events = sent < bytes ? POLLOUT : 0;
			if (poll(ends, 2, 5000) <= 0)
				die("poll");
		}
	}
}

static int64_t tcp_mebibytes(long count)
{
	struct connection made = open_connection();
	int64_t start = now_ns(), took;

	transfer(&made, (long long)count * MEBIBYTE);
	took = now_ns() - start;
	close_connection(&made);
	return took;
}

static void send_asked(void)
{
	check(sendto(udp_client, buffer, 8, 0, (void *)&asked, sizeof(asked)), 8, "sendto");
}

static int64_t udp_sends(long count)
{
	int64_t start = now_ns();

	for (long i = 0; i < count; i++) {
		send_asked();
		check(recv(udp_server, buffer, sizeof(buffer), 0), 8, "recv");
	}
	return now_ns() - start;
}

static int64_t udp_exchanges(long count)
{
	int64_t start = now_ns();

	for (long i = 0; i < count; i++) {
		struct sockaddr_in from;
		socklen_t length = sizeof(from);

		send_asked();
		check(recvfrom(udp_server, buffer, sizeof(buffer), 0, (void *)&from, &length), 8, "recvfrom");
		check(sendto(udp_server, buffer, 8, 0, (void *)&from, length), 8, "sendto");
		check(recvfrom(udp_client, buffer, sizeof(buffer), 0, (void *)&from, &length), 8, "recvfrom");
		check_address(&from, "recvfrom");
	}
	return now_ns() - start;
}

static int64_t udp_cycles(long count)
{
	int64_t start = now_ns();

	for (long i = 0; i < count; i++) {
		int fd = make(AF_INET, SOCK_DGRAM);

		connect_asked(fd);
		check(send(fd, buffer, 8, 0), 8, "send");
		check(recv(udp_server, buffer, sizeof(buffer), 0), 8, "recv");
		close(fd);
	}
	return now_ns() - start;
}

static int64_t unix_cycles(long count)
{
	int64_t start = now_ns();

	for (long i = 0; i < count; i++) {
		int fd = make(AF_UNIX, SOCK_STREAM);

		if (connect(fd, (void *)&asked_name, asked_name_length))
			die("connect to a name");
		close(accept_on(unix_listener));
		close(fd);
	}
	return now_ns() - start;
}

static const struct {
	const char *name;
	int64_t (*measure)(long count);
} operations[] = {
	{"tcp-cycle", tcp_cycles},	 {"tcp-connect", tcp_connects}, {"tcp-exchange", tcp_exchanges},
	{"tcp-mib", tcp_mebibytes},	 {"udp-cycle", udp_cycles},	{"udp-send", udp_sends},
	{"udp-exchange", udp_exchanges}, {"unix-cycle", unix_cycles},
};

static int64_t measure(const char *name, long count)
{
	for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++)
		if (!strcmp(operations[i].name, name))
			return operations[i].measure(count);
	fprintf(stderr, "%s: no such operation\n", name);
	exit(2);
}

static void serve_inet(int fd, uint16_t port)
{
	struct sockaddr_in everywhere = {.sin_family = AF_INET, .sin_port = htons(port)};
	int reuse = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
	if (bind(fd, (void *)&everywhere, sizeof(everywhere)))
		die("bind");
}

static socklen_t abstract(struct sockaddr_un *address, const char *name)
{
	address->sun_family = AF_UNIX;
	snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "%s", name);
	return offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
}

static void serve_unix(int fd, const char *name)
{
	struct sockaddr_un address = {0};
	socklen_t length = abstract(&address, name);

	if (bind(fd, (void *)&address, length) || listen(fd, 64))
		die("bind a name");
}

static void open_all(char **argv)
{
	char *colon = strrchr(argv[2], ':');

	if (!colon)
		exit(2);
	*colon = '\0';
	asked.sin_family = AF_INET;
	asked.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, argv[2], &asked.sin_addr) != 1)
		exit(2);
	asked_name_length = abstract(&asked_name, argv[3]);
	tcp_listener = make(AF_INET, SOCK_STREAM);
	udp_server = make(AF_INET, SOCK_DGRAM);
	udp_client = make(AF_INET, SOCK_DGRAM);
	unix_listener = make(AF_UNIX, SOCK_STREAM);
	serve_inet(tcp_listener, (uint16_t)atoi(argv[4]));
	serve_inet(udp_server, (uint16_t)atoi(argv[4]));
	serve_unix(unix_listener, argv[5]);
	if (listen(tcp_listener, 64))
		die("listen");
}

int main(int argc, char **argv)
{
	char operation[32];
	long count;

	if (argc != 6)
		return 2;
	join(argv[1]);
	open_all(argv);
	while (scanf("%31s %ld", operation, &count) == 2) {
		printf("%lld\n", (long long)measure(operation, count));
		fflush(stdout);
	}
	return 0;
}
