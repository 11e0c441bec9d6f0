/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peak CGROUP|- COMMAND [ARGUMENT...]
 *
 * Runs COMMAND in CGROUP and prints, behind whatever it says, the nanoseconds that it took and the most KiB that it had
 * resident at once. A program of its own, because a process inherits the size of the one that started it in what
 * wait4() tells. Exits as COMMAND did.
 */
#include "measure.h"
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
	struct rusage usage;
	int status;

	if (argc < 3)
		return 2;
	int64_t start = now_ns();
	pid_t child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		if (strcmp(argv[1], "-"))
			join(argv[1]);
		execvp(argv[2], argv + 2);
		die(argv[2]);
	}
	if (wait4(child, &status, 0, &usage) != child)
		die("wait4");
	printf("%lld %ld\n", (long long)(now_ns() - start), usage.ru_maxrss);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
