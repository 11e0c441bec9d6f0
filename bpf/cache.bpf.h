/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Verdicts that this CPU gave before: calls that repeat are not judged again. Must not know how a verdict is found.
 *
 * Only what leaves no trace but a count is kept: an allow that makes no event and has no other shadow verdict, of a
 * task on a socket of its own cgroup; and that nothing governs a cgroup (family 0, no address). What a verdict depends
 * on is the generation, the labels (control.epoch counts every time the daemon wrote any) and the call: all three are
 * in the entry. A collision replaces, so the table never grows.
 *
 * A task can be preempted in here by another one on the same CPU: an entry is read and written as under a seqlock whose
 * writers never wait. Its readers and writers share a CPU, so compiler barriers are enough.
 */
#ifndef CGNETD_CACHE_BPF_H
#define CGNETD_CACHE_BPF_H

#include "call.bpf.h"

#define CGN_CACHE_PRIME 0x9e3779b97f4a7c15ull

/* Where the entry of a call is, or for `cgroup_id` alone, address and port 0. Fibonacci hashing, upper bits. */
static __always_inline __u32 cgn_cache_index(const struct cgn_call *call)
{
	__u64 hash = call->task_id * CGN_CACHE_PRIME;

	hash ^= (call->address[0] ^ call->address[1] ^ ((__u64)call->port << 32) ^ ((__u64)call->context << 48)) *
		0xc2b2ae3d27d4eb4full;
	return hash >> (64 - CGN_CACHE_BITS);
}

static __always_inline bool cgn_cache_is(const struct cgn_cached *entry, const struct cgn_call *call)
{
	return entry->task_id == call->task_id && entry->address[1] == call->address[1] &&
	       entry->address[0] == call->address[0] && entry->generation == call->generation &&
	       entry->port == call->port && entry->family == call->family && entry->context == call->context &&
	       entry->epoch == call->epoch;
}

/* Whether nothing governs a cgroup, as far as it is known. Before anything else is done: most calls of a host end here.
 */
static __always_inline bool cgn_cache_is_quiet(__u64 task_id, __u32 generation, __u32 epoch)
{
	__u32 index = task_id * CGN_CACHE_PRIME >> (64 - CGN_CACHE_BITS), sequence;
	struct cgn_cached *entry = bpf_map_lookup_elem(&cgn_cache, &index);
	bool quiet;

	if (!entry)
		return false;
	sequence = *(volatile __u32 *)&entry->sequence;
	barrier();
	quiet = entry->task_id == task_id && entry->generation == generation && entry->epoch == epoch && !entry->family;
	barrier();
	return quiet && !(sequence & 1) && *(volatile __u32 *)&entry->sequence == sequence;
}

/* The verdict on an equal call, into call->rule and call->rule_count. */
static __always_inline bool cgn_cache_find(struct cgn_call *call)
{
	__u32 index = cgn_cache_index(call), sequence;
	struct cgn_cached *entry = bpf_map_lookup_elem(&cgn_cache, &index);

	if (!entry)
		return false;
	sequence = *(volatile __u32 *)&entry->sequence;
	barrier();
	if (sequence & 1 || !cgn_cache_is(entry, call))
		return false;
	call->rule = entry->rule;
	call->rule_count = entry->rule_count;
	barrier();
	if (*(volatile __u32 *)&entry->sequence == sequence)
		return true;
	call->rule_count = 0; /* torn: as if no image had been opened */
	return false;
}

static __always_inline void cgn_cache_store(const struct cgn_call *call)
{
	__u32 index = cgn_cache_index(call), sequence;
	struct cgn_cached *entry = bpf_map_lookup_elem(&cgn_cache, &index);

	if (!entry)
		return;
	sequence = *(volatile __u32 *)&entry->sequence;
	if (sequence & 1 || __sync_val_compare_and_swap(&entry->sequence, sequence, sequence + 1) != sequence)
		return;
	barrier();
	entry->task_id = call->task_id;
	entry->address[0] = call->address[0];
	entry->address[1] = call->address[1];
	entry->rule = call->rule;
	entry->generation = call->generation;
	entry->epoch = call->epoch;
	entry->rule_count = call->rule_count;
	entry->port = call->port;
	entry->family = call->family;
	entry->context = call->context;
	barrier();
	*(volatile __u32 *)&entry->sequence = sequence + 2;
}

#endif
