/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Calls that need no verdict: nothing governs who makes them, or this CPU allowed an equal one before. They end here,
 * before a call is put together. Must not know how a verdict is found.
 */
#ifndef CGNETD_QUICK_BPF_H
#define CGNETD_QUICK_BPF_H

#include "account.bpf.h"
#include "cache.bpf.h"
#include "hook.bpf.h"
#include "plain.bpf.h"
#include "talk.bpf.h"
#include "view.bpf.h"

/* Ports and addresses come in network order, as the contexts have them. */
static __always_inline void cgn_want4(struct cgn_wanted *wanted, enum cgn_hook hook, __u32 protocol, __be32 address,
				      __be16 port)
{
	wanted->address[0] = 0;
	wanted->address[1] = bpf_ntohl(address);
	wanted->what = CGN_WHAT(hook, CGN_FAMILY_V4, protocol, bpf_ntohs(port));
}

static __always_inline void cgn_want6(struct cgn_wanted *wanted, enum cgn_hook hook, __u32 protocol,
				      const __be32 address[4], __be16 port)
{
	if (cgn_is_mapped(address)) {
		cgn_want4(wanted, hook, protocol, address[3], port);
		return;
	}
	cgn_from_words(wanted->address, address);
	wanted->what = CGN_WHAT(hook, CGN_FAMILY_V6, protocol, bpf_ntohs(port));
}

/* Whether the call can concern what its socket shows for a peer: then it has to be seen, even if nothing denies it. */
static __always_inline bool cgn_has_view(struct bpf_sock *sk, enum cgn_hook hook)
{
	if (hook == CGN_HOOK_SENDMSG)
		return sk->dst_port || cgn_talks_of(sk, false);
	return cgn_peers_of(sk, false) || cgn_whole_socket(sk);
}

/* The same, while `control` says that sockets can have views at all. */
static __always_inline bool cgn_is_viewed(const struct cgn_control *control, struct bpf_sock *sk, enum cgn_hook hook)
{
	return *(const volatile __u32 *)&control->flags & CGN_CONTROL_VIEWS && cgn_has_view(sk, hook);
}

static __always_inline void cgn_count_known(__u32 slot, __u32 counter)
{
	void *counters = bpf_map_lookup_elem(&cgn_counters, &slot);
	__u64 *cell;

	if (!counters)
		return;
	cell = bpf_map_lookup_elem(counters, &counter);
	if (cell)
		__sync_fetch_and_add(cell, 1);
}

/*
 * What was found of a call by a first look, while it cannot be told yet. In registers: the program that looks has a
 * frame of 32 bytes at most, or there is no room for the verdict below it (Linux 6.1 rounds each frame up to 32, to 512
 * in all).
 */
struct cgn_glance {
	const struct cgn_control *control;
	const struct cgn_cached *latest; /* what is remembered of the cgroup */
	__u64 task_id;
	__u32 slot;
};

enum cgn_sight {
	CGN_SIGHT_JUDGE = 0, /* it is to be judged */
	CGN_SIGHT_PASS = 1, /* it can be let pass as it is */
	CGN_SIGHT_ASK = 2, /* it may be let pass: cgn_passes() tells */
};

/* Not kept over calls of helpers: registers are few, and the verdict needs the stack. */
static __always_inline __u64 cgn_era_of(const struct cgn_glance *glance)
{
	return cgn_era(*(const volatile __u32 *)&glance->control->generation[glance->slot],
		       *(const volatile __u32 *)&glance->control->epoch);
}

/* Who makes the call: a call passes while no generation is in force, or nothing governs the task and its socket. */
static __always_inline enum cgn_sight cgn_glance(struct cgn_glance *glance, struct bpf_sock_addr *ctx,
						 enum cgn_hook hook)
{
	__u32 zero = 0;

	glance->control = bpf_map_lookup_elem(&cgn_control, &zero);
	if (!glance->control)
		return CGN_SIGHT_PASS;
	glance->slot = *(const volatile __u32 *)&glance->control->active & (CGN_SLOTS - 1);
	if (*(const volatile __u32 *)&glance->control->generation[glance->slot]) {
		if (!cgn_is_own_socket(ctx->sk, &glance->task_id))
			return CGN_SIGHT_JUDGE;
		glance->latest = cgn_cached_at(cgn_place_of_cgroup(glance->task_id));
		if (!glance->latest)
			return CGN_SIGHT_JUDGE;
		if (!cgn_says_quiet(glance->latest, glance->task_id, cgn_era_of(glance)))
			return CGN_SIGHT_ASK;
	}
	return cgn_is_viewed(glance->control, ctx->sk, hook) ? CGN_SIGHT_JUDGE : CGN_SIGHT_PASS;
}

/* What is remembered in the place of the whole call, CGN_PLAIN() or CGN_PLAIN_OTHER. */
static __always_inline __u64 cgn_recall(struct cgn_sights *sights, __u64 hash, const struct cgn_wanted *wanted,
					__u64 task_id, __u64 era)
{
	const struct cgn_cached *entry;
	__u32 counter;

	if (*cgn_sight_of_call(sights, hash) != cgn_tag_of_call(hash))
		return CGN_PLAIN_OTHER;
	entry = cgn_cached_at(cgn_place_of_call(hash));
	return entry && cgn_says_allow(entry, wanted, task_id, era, &counter) ? CGN_PLAIN(counter) : CGN_PLAIN_OTHER;
}

/*
 * The verdict on a call that its cgroup's entry does not tell of, CGN_PLAIN() or CGN_PLAIN_OTHER: what is remembered,
 * or is found now, and is remembered then. `what`: with the slot behind its CGN_WHAT_BITS. On a stack of its own.
 */
CGN_STATIC_NOINLINE __u64 cgn_find_plainly(__u64 task_id, __u64 era, __u64 what, __u64 high, __u64 low)
{
	const struct cgn_wanted wanted = {.address = {high, low}, .what = what & ((1ull << CGN_WHAT_BITS) - 1)};
	struct cgn_memo memo = {.task_id = task_id, .era = era};
	struct cgn_question question = {
		.address = {high, low},
		.slot = what >> CGN_WHAT_BITS,
		.generation = era >> 32,
		.port = CGN_WHAT_PORT(what),
		.hook = CGN_WHAT_HOOK(what),
		.family = CGN_WHAT_FAMILY(what),
		.direction = CGN_DIR_EGRESS,
		.context = cgn_context_of(CGN_WHAT_HOOK(what), CGN_WHAT_PROTOCOL(what)),
	};
	__u64 hash = cgn_hash_of_call(task_id, &wanted), plain;
	struct cgn_sights *sights = cgn_sights_here();
	__u8 *habit;

	if (!sights)
		return CGN_PLAIN_OTHER;
	plain = cgn_recall(sights, hash, &wanted, task_id, era);
	habit = cgn_habit_of_cgroup(sights, task_id);
	if (plain != CGN_PLAIN_OTHER || *habit == CGN_TAG_WHOLE)
		return plain;
	plain = cgn_judge_plainly(&question, task_id);
	if (plain == CGN_PLAIN_OTHER) {
		*habit = CGN_TAG_WHOLE;
		return plain;
	}
	memo.counter = CGN_PLAIN_COUNTER(plain);
	cgn_keep_call(sights, hash, &wanted, &memo);
	return plain;
}

/*
 * Whether a call is let pass and nothing else; then it is counted. Not for 0.0.0.0 and ::, which mean other addresses.
 */
static __always_inline bool cgn_passes(const struct cgn_glance *glance, const struct cgn_wanted *wanted,
				       struct bpf_sock_addr *ctx, enum cgn_hook hook)
{
	__u64 era = cgn_era_of(glance), plain;
	__u32 counter;

	if (!cgn_says_allow(glance->latest, wanted, glance->task_id, era, &counter)) {
		plain = cgn_find_plainly(glance->task_id, era, wanted->what | (__u64)glance->slot << CGN_WHAT_BITS,
					 wanted->address[0], wanted->address[1]);
		if (plain == CGN_PLAIN_OTHER)
			return false;
		counter = CGN_PLAIN_COUNTER(plain);
	}
	if (cgn_is_viewed(glance->control, ctx->sk, hook))
		return false;
	cgn_count_known(glance->slot, counter);
	return true;
}

#endif
