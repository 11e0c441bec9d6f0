/* SPDX-License-Identifier: Apache-2.0 */
/*
 * first_call PARENT SUFFIX COUNT clone|move DEPTH ADDRESS PORT
 *
 * Makes COUNT cgroups PARENT/N-SUFFIX (and DEPTH more below each), starts one process in each as early as the kernel
 * can, which connects at once (UDP and TCP), and prints how often each errno came back: {"calls": N, "1": N, ...}. "0"
 * is an escape. Works in batches, so that many cgroups are young at the same time. Must not know policies.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BATCH 50
#define PATH_SIZE 1024

static struct sockaddr_in target;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* The errno of connecting; the worse of the two kinds of sockets (0 = it got out). */
static int connect_at_once(void)
{
	int kinds[] = {SOCK_DGRAM, SOCK_STREAM}, worst = 255;

	for (int i = 0; i < 2; i++) {
		int fd = socket(AF_INET, kinds[i] | SOCK_NONBLOCK, 0);
		int got = connect(fd, (void *)&target, sizeof(target)) ? errno : 0;

		if (got == EINPROGRESS || got == ECONNREFUSED)
			got = 0;
		if (got < worst)
			worst = got;
		close(fd);
	}
	return worst;
}

static pid_t start_inside(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)fd};
	pid_t pid;

	if (fd < 0)
		die(path);
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0)
		die("clone3");
	if (pid == 0)
		_exit(connect_at_once());
	close(fd);
	return pid;
}

static pid_t start_and_move(const char *path)
{
	char procs[PATH_SIZE + 32];
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid)
		return pid;
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
	int fd = open(procs, O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1)
		_exit(254);
	_exit(connect_at_once());
}

/* The path of cgroup N at `depth` levels below its first one. */
static void path_of(char *path, const char *parent, const char *suffix, int n, int depth)
{
	int at = snprintf(path, PATH_SIZE, "%s/%d-%s", parent, n, suffix);

	for (int level = 0; level < depth; level++)
		at += snprintf(path + at, (size_t)(PATH_SIZE - at), "/level-%d", level);
}

int main(int argc, char **argv)
{
	char path[PATH_SIZE];
	int seen[256] = {0}, total = 0;

	if (argc != 8)
		return 2;
	int count = atoi(argv[3]), depth = atoi(argv[5]), moves = !strcmp(argv[4], "move");

	target.sin_family = AF_INET;
	target.sin_port = htons((uint16_t)atoi(argv[7]));
	inet_pton(AF_INET, argv[6], &target.sin_addr);
	for (int base = 0; base < count; base += BATCH) {
		int last = base + BATCH < count ? base + BATCH : count, status;

		for (int n = base; n < last; n++) {
			for (int level = 0; level <= depth; level++) {
				path_of(path, argv[1], argv[2], n, level);
				if (mkdir(path, 0755))
					die(path);
			}
			if (moves)
				start_and_move(path);
			else
				start_inside(path);
		}
		while (wait(&status) > 0) {
			seen[WIFEXITED(status) ? WEXITSTATUS(status) : 253]++;
			total++;
		}
		for (int n = base; n < last; n++)
			for (int level = depth; level >= 0; level--) {
				path_of(path, argv[1], argv[2], n, level);
				while (rmdir(path) && errno == EBUSY)
					usleep(1000);
			}
	}
	printf("{\"calls\": %d", total);
	for (int i = 0; i < 256; i++)
		if (seen[i])
			printf(", \"%d\": %d", i, seen[i]);
	printf("}\n");
	return 0;
}
