/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Verdicts that this CPU gave before: calls that repeat are not judged again. Must not know how a verdict is found.
 *
 * Only what leaves no trace but a count is kept: an allow that makes no event and has no other shadow verdict, of a
 * task on a socket of its own cgroup; and that nothing governs a cgroup (`what` is 0). What a verdict depends
 * on is the generation, the labels (control.epoch counts every time the daemon wrote any) and the call: all three are
 * in the entry. A collision replaces, so the table never grows.
 *
 * An entry has one of two places: that of its cgroup, where the last verdict of each is, or nothing governs it; and
 * that of the whole call. Calls are kept when they are allowed for the second time. `cgn_sights` tells which ones were:
 * a byte a place, few enough to stay near, so that calls to ever new destinations touch nothing else.
 *
 * A task can be preempted in here by another one on the same CPU: an entry is read and written as under a seqlock whose
 * writers never wait. Its readers and writers share a CPU, so compiler barriers are enough.
 */
#ifndef CGNETD_CACHE_BPF_H
#define CGNETD_CACHE_BPF_H

#include "call.bpf.h"
#include "image.bpf.h"

/* What a call is known by, beside who makes it. Addresses as in struct cgn_call. */
struct cgn_wanted {
	__u64 address[2];
	__u64 what; /* CGN_WHAT */
};

/* Never 0: families and hooks are known here as they are in struct cgn_call. */
#define CGN_WHAT(hook, family, protocol, port)                                                                         \
	((__u64)(hook) << 40 | (__u64)(family) << 32 | (__u64)(protocol) << 16 | (__u64)(port))
#define CGN_WHAT_BITS 48
#define CGN_WHAT_HOOK(what) ((__u8)((what) >> 40))
#define CGN_WHAT_FAMILY(what) ((__u8)((what) >> 32))
#define CGN_WHAT_PROTOCOL(what) ((__u16)((what) >> 16))
#define CGN_WHAT_PORT(what) ((__u16)(what))

/* Under what a verdict was given: it holds for that alone. */
static __always_inline __u64 cgn_era(__u32 generation, __u32 epoch)
{
	return (__u64)generation << 32 | epoch;
}

/* Fibonacci hashing, upper bits. */
static __always_inline __u32 cgn_place_of_cgroup(__u64 task_id)
{
	return task_id * 0x9e3779b97f4a7c15ull >> (64 - CGN_CACHE_BITS);
}

/* Of the upper bits, CGN_CACHE_BITS are the place of the call, and eight more what it is told from others by there. */
static __always_inline __u64 cgn_hash_of_call(__u64 task_id, const struct cgn_wanted *wanted)
{
	__u64 call = wanted->address[0] ^ wanted->address[1] ^ (wanted->what << 32 | wanted->what >> 32);

	return task_id * 0x9e3779b97f4a7c15ull ^ call * 0xc2b2ae3d27d4eb4full;
}

static __always_inline __u32 cgn_place_of_call(__u64 hash)
{
	return hash >> (64 - CGN_CACHE_BITS);
}

/* What tells a call from others of its place in `cgn_sights`. */
static __always_inline __u8 cgn_tag_of_call(__u64 hash)
{
	return hash >> (56 - CGN_CACHE_BITS);
}

/* The tags are wrong now and then, and written without care: they only save work. */
static __always_inline struct cgn_sights *cgn_sights_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cgn_sights, &zero);
}

/* The tag of the last call that was allowed of all that have the place of that hash. */
static __always_inline __u8 *cgn_sight_of_call(struct cgn_sights *sights, __u64 hash)
{
	return &sights->tag[cgn_place_of_call(hash)];
}

#define CGN_TAG_WHOLE 0xff

/*
 * CGN_TAG_WHOLE if the last call of the cgroup that was not remembered had to be judged as a whole: so will the next
 * one, in a storm of denials, under a rule that logs, in audit mode. Lies among the tags of calls.
 */
static __always_inline __u8 *cgn_habit_of_cgroup(struct cgn_sights *sights, __u64 task_id)
{
	return &sights->tag[cgn_place_of_cgroup(task_id)];
}

static __always_inline struct cgn_cached *cgn_cached_at(__u32 place)
{
	return bpf_map_lookup_elem(&cgn_cache, &place);
}

/* Begins to read an entry, which is of that cgroup and era. False: it is not, or is being written. */
static __always_inline bool cgn_read_begin(const struct cgn_cached *entry, __u64 task_id, __u64 era, __u32 *sequence)
{
	*sequence = *(const volatile __u32 *)&entry->sequence;
	barrier();
	return !(*sequence & 1) && entry->task_id == task_id && entry->era == era;
}

/* Whether what was read since is one entry. */
static __always_inline bool cgn_read_end(const struct cgn_cached *entry, __u32 sequence)
{
	barrier();
	return *(const volatile __u32 *)&entry->sequence == sequence;
}

/* Whether the entry says that nothing governs the cgroup. */
static __always_inline bool cgn_says_quiet(const struct cgn_cached *entry, __u64 task_id, __u64 era)
{
	__u32 sequence;

	return cgn_read_begin(entry, task_id, era, &sequence) && !entry->what && cgn_read_end(entry, sequence);
}

/* Whether the entry says that the call is allowed, with the place of its counter. */
static __always_inline bool cgn_says_allow(const struct cgn_cached *entry, const struct cgn_wanted *wanted,
					   __u64 task_id, __u64 era, __u32 *counter)
{
	__u32 sequence;

	if (!cgn_read_begin(entry, task_id, era, &sequence) || entry->what != wanted->what ||
	    entry->address[1] != wanted->address[1] || entry->address[0] != wanted->address[0])
		return false;
	*counter = entry->counter;
	return cgn_read_end(entry, sequence);
}

/* What the verdict on a call is remembered with, beside the call. */
struct cgn_memo {
	__u64 task_id;
	__u64 era;
	__u32 counter;
	__u32 reserved;
};

static __always_inline void cgn_keep_at(__u32 place, const struct cgn_wanted *wanted, const struct cgn_memo *memo)
{
	struct cgn_cached *entry = cgn_cached_at(place);
	__u32 sequence;

	if (!entry)
		return;
	sequence = *(volatile __u32 *)&entry->sequence;
	if (sequence & 1 || __sync_val_compare_and_swap(&entry->sequence, sequence, sequence + 1) != sequence)
		return;
	barrier();
	entry->task_id = memo->task_id;
	entry->era = memo->era;
	entry->address[0] = wanted->address[0];
	entry->address[1] = wanted->address[1];
	entry->what = wanted->what;
	entry->counter = memo->counter;
	barrier();
	*(volatile __u32 *)&entry->sequence = sequence + 2;
}

/* Remembers that a call was allowed, from the second time on: many calls never come again. */
static __always_inline void cgn_keep_call(struct cgn_sights *sights, __u64 hash, const struct cgn_wanted *wanted,
					  const struct cgn_memo *memo)
{
	__u8 tag = cgn_tag_of_call(hash), *sight = cgn_sight_of_call(sights, hash);

	if (*sight != tag) {
		*sight = tag;
		return;
	}
	cgn_keep_at(cgn_place_of_cgroup(memo->task_id), wanted, memo);
	cgn_keep_at(cgn_place_of_call(hash), wanted, memo);
}

/* The same of a call that was judged as a whole. */
CGN_STATIC_NOINLINE void cgn_keep_allow(const struct cgn_call *call)
{
	struct cgn_memo memo = {
		.task_id = call->task_id,
		.era = cgn_era(call->generation, call->epoch),
		.counter = cgn_counter_place(call->rule_count, call->rule, CGN_COUNT_ENFORCED),
	};
	struct cgn_wanted wanted = {
		.address = {call->address[0], call->address[1]},
		.what = CGN_WHAT(call->hook, call->family, call->protocol, call->port),
	};
	struct cgn_sights *sights = cgn_sights_here();
	__u8 *habit;

	if (!sights)
		return;
	habit = cgn_habit_of_cgroup(sights, memo.task_id);
	if (*habit == CGN_TAG_WHOLE)
		*habit = 0;
	cgn_keep_call(sights, cgn_hash_of_call(memo.task_id, &wanted), &wanted, &memo);
}

/* Remembers that nothing governs the task's cgroup. */
CGN_STATIC_NOINLINE void cgn_keep_quiet(const struct cgn_call *call)
{
	struct cgn_memo memo = {.task_id = call->task_id, .era = cgn_era(call->generation, call->epoch)};
	const struct cgn_wanted nothing = {};

	cgn_keep_at(cgn_place_of_cgroup(memo.task_id), &nothing, &memo);
}

#endif
