/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peer CGROUP|- PORT [PORTS]
 *
 * Joins CGROUP, lets Landlock allow TCP connections to PORTS ports alone if that is given, and measures: for each line
 * "OPERATION COUNT" on stdin, does OPERATION COUNT times and prints the nanoseconds it took. Operations: sendto, always
 * to 127.0.0.1; spread, a sendto to a different address each time; refused, a TCP connect to a different address each
 * time, where nobody listens. The addresses are in 127.0.0.0/8, their last byte is 128 or more. "denied ADDRESS", a
 * number, ends the program unless a sendto there is denied. Must not know policies.
 */
#define _GNU_SOURCE
#include "measure.h"
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define REFUSING_PORT 9
#define LANDLOCK_CONNECT_TCP (1ull << 1)
#define LANDLOCK_RULE_PORT 2

static struct sockaddr_in target = {.sin_family = AF_INET}, nobody = {.sin_family = AF_INET};
static int receiver, sender, connector;
static uint32_t state = 1;

/* linux/landlock.h of many systems has no ports yet. */
struct landlock_rules {
	uint64_t handled_fs, handled_net;
};

struct landlock_port {
	uint64_t allowed, port;
};

static void require_denied(uint32_t address)
{
	target.sin_addr.s_addr = htonl(address);
	if (sendto(sender, "12345678", 8, 0, (void *)&target, sizeof(target)) >= 0 || errno != EPERM)
		die("not denied");
}

static in_addr_t another(void)
{
	state = state * 1664525 + 1013904223;
	return htonl(0x7f000000u | state >> 8 | 128);
}

static void send_to(in_addr_t address)
{
	target.sin_addr.s_addr = address;
	if (sendto(sender, "12345678", 8, 0, (void *)&target, sizeof(target)) != 8)
		die("sendto");
}

static void send_one(void)
{
	send_to(htonl(INADDR_LOOPBACK));
}

static void send_spread(void)
{
	send_to(another());
}

static void connect_refused(void)
{
	nobody.sin_addr.s_addr = another();
	if (!connect(connector, (void *)&nobody, sizeof(nobody)) || errno != ECONNREFUSED)
		die("connect");
}

static void allow_port(int rules, uint64_t port)
{
	struct landlock_port allowed = {LANDLOCK_CONNECT_TCP, port};

	if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PORT, &allowed, 0))
		die("landlock_add_rule");
}

/* The port that refuses, and as many others as are missing to `count`. */
static void restrict_ports(long count)
{
	struct landlock_rules handled = {0, LANDLOCK_CONNECT_TCP};
	int rules = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof(handled), 0);

	if (rules < 0)
		die("landlock_create_ruleset");
	allow_port(rules, REFUSING_PORT);
	for (long port = REFUSING_PORT + 1; port < REFUSING_PORT + count; port++)
		allow_port(rules, (uint64_t)port);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_landlock_restrict_self, rules, 0))
		die("landlock_restrict_self");
	close(rules);
}

static void open_all(const char *port)
{
	target.sin_port = htons((uint16_t)atoi(port));
	nobody.sin_port = htons(REFUSING_PORT);
	receiver = socket(AF_INET, SOCK_DGRAM, 0);
	sender = socket(AF_INET, SOCK_DGRAM, 0);
	connector = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(receiver, (void *)&target, sizeof(target)))
		die("bind");
}

static void fill(void)
{
	char byte[16];

	while (recv(receiver, byte, sizeof(byte), MSG_DONTWAIT) >= 0)
		;
	for (int i = 0; i < 600; i++)
		send_one();
}

static int64_t measure(const char *operation, long count)
{
	void (*one)(void) = !strcmp(operation, "sendto")   ? send_one
			    : !strcmp(operation, "spread") ? send_spread
							   : connect_refused;
	int64_t start = now_ns();

	if (!strcmp(operation, "denied")) {
		require_denied((uint32_t)count);
		return 0;
	}
	for (long i = 0; i < count; i++)
		one();
	return now_ns() - start;
}

int main(int argc, char **argv)
{
	char operation[32];
	long count;

	if (argc < 3)
		return 2;
	if (strcmp(argv[1], "-"))
		join(argv[1]);
	open_all(argv[2]);
	if (argc > 3)
		restrict_ports(atol(argv[3]));
	fill();
	while (scanf("%31s %ld", operation, &count) == 2) {
		printf("%lld\n", (long long)measure(operation, count));
		fflush(stdout);
	}
	return 0;
}
