/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The mark that a bind() to port 0 leaves for post_bind, which cannot tell by itself that the kernel picked the port.
 * Must not know of verdicts.
 *
 * Both hooks run in one thread, one after the other. So the mark is left in the place of the thread, which costs a
 * fraction of socket storage: that is allocated for each bind and freed with the socket. Threads share places: who
 * finds another thread's mark in his, which may be of a bind that is under way, keeps his own with the socket. A mark
 * of a thread that ended before post_bind stays, and costs the others of that place the time it saves, never a verdict.
 */
#ifndef CGNETD_PICKS_BPF_H
#define CGNETD_PICKS_BPF_H

#include "call.bpf.h"

/* The thread's place, and its id. Never NULL: the verifier does not know that. */
static __always_inline struct cgn_pick *cgn_pick_of_thread(__u32 *thread_id)
{
	__u32 place;

	*thread_id = bpf_get_current_pid_tgid();
	place = *thread_id & ((1 << CGN_PICKS_BITS) - 1);
	return bpf_map_lookup_elem(&cgn_picks, &place);
}

/* Leaves the mark in the place of the thread. False: it is taken. */
static __always_inline bool cgn_pick(struct cgn_pick *pick, __u32 thread_id, __u64 socket)
{
	if (!thread_id || __sync_val_compare_and_swap(&pick->thread_id, 0, thread_id))
		return false;
	pick->socket = socket;
	return true;
}

/* Marks the socket if the kernel is to pick a port, else clears the mark. False: there was no memory. */
CGN_STATIC_NOINLINE bool cgn_mark(struct bpf_sock_addr *ctx, bool picks_port)
{
	struct cgn_stamp *stamp;
	struct cgn_pick *pick;
	__u32 thread_id;

	pick = cgn_pick_of_thread(&thread_id);
	if (pick && pick->thread_id == thread_id)
		pick->thread_id = 0;
	stamp = bpf_sk_storage_get(&cgn_stamps, ctx->sk, NULL, 0);
	if (!stamp) {
		if (!picks_port || (pick && cgn_pick(pick, thread_id, bpf_get_socket_cookie(ctx))))
			return true;
		stamp = bpf_sk_storage_get(&cgn_stamps, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	}
	if (stamp) {
		stamp->port_is_picked = picks_port;
		stamp->source_is_ours = false;
	}
	return stamp;
}

/* Whether the kernel picked the port of this bind; clears the mark. */
static __always_inline bool cgn_takes_mark(struct bpf_sock *sk)
{
	struct cgn_stamp *stamp;
	struct cgn_pick *pick;
	__u32 thread_id;
	bool picked;

	pick = cgn_pick_of_thread(&thread_id);
	if (pick && pick->thread_id == thread_id) {
		picked = pick->socket == bpf_get_socket_cookie(sk);
		pick->thread_id = 0;
		if (picked)
			return true;
	}
	stamp = bpf_sk_storage_get(&cgn_stamps, sk, NULL, 0);
	if (!stamp || !stamp->port_is_picked)
		return false;
	stamp->port_is_picked = 0;
	return true;
}

#endif
