/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Verdicts that this CPU gave before: calls that repeat are not judged again. Must not know how a verdict is found.
 *
 * Only what leaves no trace but a count is kept: an allow that makes no event and has no other shadow verdict, of a
 * task on a socket of its own cgroup; and that nothing governs a cgroup (family 0, no address). What a verdict depends
 * on is the generation, the labels (control.epoch counts every time the daemon wrote any) and the call: all three are
 * in the entry. A collision replaces, so the table never grows.
 *
 * An entry has one of two places: that of its cgroup, where the last verdict of each is, or nothing governs it; and
 * that of the whole call.
 *
 * A task can be preempted in here by another one on the same CPU: an entry is read and written as under a seqlock whose
 * writers never wait. Its readers and writers share a CPU, so compiler barriers are enough.
 */
#ifndef CGNETD_CACHE_BPF_H
#define CGNETD_CACHE_BPF_H

#include "call.bpf.h"
#include "image.bpf.h"

/* What a call is known by, beside who makes it. Address and port as in struct cgn_call. */
struct cgn_wanted {
	__u64 address[2];
	__u16 port;
	__u8 family;
	__u8 context;
};

enum cgn_memory {
	CGN_MEMORY_NONE = 0,
	CGN_MEMORY_QUIET = 1, /* nothing governs the cgroup */
	CGN_MEMORY_ALLOW = 2,
};

/* Fibonacci hashing, upper bits. */
static __always_inline __u32 cgn_place_of_cgroup(__u64 task_id)
{
	return task_id * 0x9e3779b97f4a7c15ull >> (64 - CGN_CACHE_BITS);
}

static __always_inline __u32 cgn_place_of_call(__u64 task_id, const struct cgn_wanted *wanted)
{
	__u64 call =
		wanted->address[0] ^ wanted->address[1] ^ ((__u64)wanted->port << 32) ^ ((__u64)wanted->context << 48);

	return (task_id * 0x9e3779b97f4a7c15ull ^ call * 0xc2b2ae3d27d4eb4full) >> (64 - CGN_CACHE_BITS);
}

/* What the entry at `place` says of the call, with the place of its counter. */
static __always_inline enum cgn_memory cgn_recall_at(__u32 place, const struct cgn_wanted *wanted, __u64 task_id,
						     __u32 generation, __u32 epoch, __u32 *counter)
{
	struct cgn_cached *entry = bpf_map_lookup_elem(&cgn_cache, &place);
	enum cgn_memory memory = CGN_MEMORY_ALLOW;
	__u32 sequence;

	if (!entry)
		return CGN_MEMORY_NONE;
	sequence = *(volatile __u32 *)&entry->sequence;
	barrier();
	if (sequence & 1 || entry->task_id != task_id || entry->generation != generation || entry->epoch != epoch)
		return CGN_MEMORY_NONE;
	if (!entry->family)
		memory = CGN_MEMORY_QUIET;
	else if (entry->address[1] != wanted->address[1] || entry->address[0] != wanted->address[0] ||
		 entry->port != wanted->port || entry->family != wanted->family || entry->context != wanted->context)
		return CGN_MEMORY_NONE;
	*counter = entry->counter;
	barrier();
	return *(volatile __u32 *)&entry->sequence == sequence ? memory : CGN_MEMORY_NONE;
}

static __always_inline enum cgn_memory cgn_recall(const struct cgn_wanted *wanted, __u64 task_id, __u32 generation,
						  __u32 epoch, __u32 *counter)
{
	enum cgn_memory memory;

	memory = cgn_recall_at(cgn_place_of_cgroup(task_id), wanted, task_id, generation, epoch, counter);
	if (memory)
		return memory;
	return cgn_recall_at(cgn_place_of_call(task_id, wanted), wanted, task_id, generation, epoch, counter);
}

/* Whether nothing governs a cgroup, as far as it is known. */
static __always_inline bool cgn_is_quiet(__u64 task_id, __u32 generation, __u32 epoch)
{
	const struct cgn_wanted nothing = {};
	__u32 counter;

	return cgn_recall_at(cgn_place_of_cgroup(task_id), &nothing, task_id, generation, epoch, &counter) ==
	       CGN_MEMORY_QUIET;
}

/* What the verdict on a call is remembered with, beside the call. */
struct cgn_memo {
	__u64 task_id;
	__u32 generation;
	__u32 epoch;
	__u32 counter;
	__u32 reserved;
};

static __always_inline void cgn_keep_at(__u32 place, const struct cgn_wanted *wanted, const struct cgn_memo *memo)
{
	struct cgn_cached *entry = bpf_map_lookup_elem(&cgn_cache, &place);
	__u32 sequence;

	if (!entry)
		return;
	sequence = *(volatile __u32 *)&entry->sequence;
	if (sequence & 1 || __sync_val_compare_and_swap(&entry->sequence, sequence, sequence + 1) != sequence)
		return;
	barrier();
	entry->task_id = memo->task_id;
	entry->address[0] = wanted->address[0];
	entry->address[1] = wanted->address[1];
	entry->generation = memo->generation;
	entry->epoch = memo->epoch;
	entry->counter = memo->counter;
	entry->port = wanted->port;
	entry->family = wanted->family;
	entry->context = wanted->context;
	barrier();
	*(volatile __u32 *)&entry->sequence = sequence + 2;
}

/* Remembers that the call was allowed. */
CGN_STATIC_NOINLINE void cgn_keep_allow(const struct cgn_call *call)
{
	struct cgn_memo memo = {
		.task_id = call->task_id,
		.generation = call->generation,
		.epoch = call->epoch,
		.counter = cgn_counter_place(call->rule_count, call->rule, CGN_COUNT_ENFORCED),
	};
	struct cgn_wanted wanted = {
		.address = {call->address[0], call->address[1]},
		.port = call->port,
		.family = call->family,
		.context = call->context,
	};

	cgn_keep_at(cgn_place_of_cgroup(memo.task_id), &wanted, &memo);
	cgn_keep_at(cgn_place_of_call(memo.task_id, &wanted), &wanted, &memo);
}

/* Remembers that nothing governs the task's cgroup. */
CGN_STATIC_NOINLINE void cgn_keep_quiet(const struct cgn_call *call)
{
	struct cgn_memo memo = {.task_id = call->task_id, .generation = call->generation, .epoch = call->epoch};
	const struct cgn_wanted nothing = {};

	cgn_keep_at(cgn_place_of_cgroup(memo.task_id), &nothing, &memo);
}

#endif
