// SPDX-License-Identifier: Apache-2.0
// How long a CPU keeps a thread waiting that comes before all others: one on each CPU sleeps for 50 us again and again.
// stall SECONDS    says "ready", and at the end for each CPU the longest wait beyond its sleep, in ns, a line each
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SLEEP_NS 50000
#define NS 1000000000ull

struct watcher {
	pthread_t thread;
	uint64_t longest_ns;
};

static pthread_barrier_t begin;
static uint64_t window_ns;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec;
}

static void *watch(void *argument)
{
	const struct timespec pause = {.tv_nsec = SLEEP_NS};
	struct watcher *own = argument;
	uint64_t end, before, after;

	pthread_barrier_wait(&begin);
	end = now_ns() + window_ns;
	for (before = now_ns(); before < end; before = after) {
		clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		after = now_ns();
		if (after - before > own->longest_ns + SLEEP_NS)
			own->longest_ns = after - before - SLEEP_NS;
	}
	return NULL;
}

static void check(int error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "stall: %s: %s\n", what, strerror(error));
	exit(1);
}

static void start(struct watcher *watcher, int cpu)
{
	struct sched_param above = {.sched_priority = sched_get_priority_max(SCHED_FIFO)};
	pthread_attr_t attributes;
	cpu_set_t alone;

	CPU_ZERO(&alone);
	CPU_SET(cpu, &alone);
	pthread_attr_init(&attributes);
	check(pthread_attr_setaffinity_np(&attributes, sizeof(alone), &alone), "stay on a CPU");
	check(pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED), "be scheduled otherwise");
	check(pthread_attr_setschedpolicy(&attributes, SCHED_FIFO), "come before others");
	check(pthread_attr_setschedparam(&attributes, &above), "come before others");
	check(pthread_create(&watcher->thread, &attributes, watch, watcher), "start a thread");
	pthread_attr_destroy(&attributes);
}

int main(int argc, char **argv)
{
	static struct watcher watchers[CPU_SETSIZE];
	cpu_set_t cpus;
	int count;

	if (argc != 2 || atof(argv[1]) <= 0 || sched_getaffinity(0, sizeof(cpus), &cpus))
		return 2;
	window_ns = (uint64_t)(atof(argv[1]) * NS);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	count = CPU_COUNT(&cpus);
	pthread_barrier_init(&begin, NULL, (unsigned int)count + 1);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &cpus))
			start(&watchers[cpu], cpu);
	pthread_barrier_wait(&begin);
	puts("ready");
	fflush(stdout);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &cpus)) {
			pthread_join(watchers[cpu].thread, NULL);
			printf("%llu\n", (unsigned long long)watchers[cpu].longest_ns);
		}
	return 0;
}
