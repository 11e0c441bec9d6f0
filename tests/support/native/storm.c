/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm connect|sendto CALLS DESTINATIONS
 *
 * Makes CALLS calls in a tight loop from one UDP socket, in turn to DESTINATIONS addresses from 127.1.0.1 on, port 9,
 * and prints how often each errno came back: {"calls": N, "113": N}. "0" is a call that went through. Must not know
 * policies.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define FIRST 0x7f010001u

int main(int argc, char **argv)
{
	struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(9)};
	static long seen[4096];

	if (argc != 4)
		return 2;
	int connects = !strcmp(argv[1], "connect");
	long calls = atol(argv[2]), destinations = atol(argv[3]);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || calls < 1 || destinations < 1) {
		perror("socket");
		return 1;
	}
	for (long n = 0; n < calls; n++) {
		long got;

		target.sin_addr.s_addr = htonl(FIRST + (unsigned int)(n % destinations));
		if (connects)
			got = connect(fd, (void *)&target, sizeof(target));
		else
			got = sendto(fd, "", 0, 0, (void *)&target, sizeof(target));
		seen[got < 0 ? errno & 4095 : 0]++;
	}
	printf("{\"calls\": %ld", calls);
	for (int i = 0; i < 4096; i++)
		if (seen[i])
			printf(", \"%d\": %ld", i, seen[i]);
	printf("}\n");
	return 0;
}
