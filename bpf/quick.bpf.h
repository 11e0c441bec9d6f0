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
#include "talk.bpf.h"
#include "view.bpf.h"

/* Ports and addresses come in network order, as the contexts have them. */
static __always_inline void cgn_want4(struct cgn_wanted *wanted, __be32 address, __be16 port)
{
	wanted->family = CGN_FAMILY_V4;
	wanted->address[0] = 0;
	wanted->address[1] = bpf_ntohl(address);
	wanted->port = bpf_ntohs(port);
}

static __always_inline void cgn_want6(struct cgn_wanted *wanted, const __be32 address[4], __be16 port)
{
	if (cgn_is_mapped(address)) {
		cgn_want4(wanted, address[3], port);
		return;
	}
	wanted->family = CGN_FAMILY_V6;
	cgn_from_words(wanted->address, address);
	wanted->port = bpf_ntohs(port);
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
 * Whether the call can be let pass as it is: no generation is in force, nothing governs it, or it is known, and then it
 * is counted. `wanted` has no context yet. 0.0.0.0 and :: mean another address, which is not looked for here.
 */
static __always_inline bool cgn_passes(struct cgn_wanted *wanted, struct bpf_sock *sk, enum cgn_hook hook,
				       __u32 protocol)
{
	__u32 zero = 0, slot, generation, epoch, counter;
	struct cgn_control *control;
	enum cgn_memory memory;
	__u64 task_id;

	control = bpf_map_lookup_elem(&cgn_control, &zero);
	if (!control)
		return true;
	slot = *(volatile __u32 *)&control->active & (CGN_SLOTS - 1);
	generation = control->generation[slot];
	epoch = *(volatile __u32 *)&control->epoch;
	if (!generation)
		return !cgn_is_viewed(control, sk, hook);
	task_id = bpf_get_current_cgroup_id();
	if (cgn_socket_cgroup_id(sk) != task_id)
		return false;
	wanted->context = cgn_proto_of(protocol) + (hook == CGN_HOOK_SENDMSG ? CGN_PROTO_COUNT : 0);
	memory = cgn_recall(wanted, task_id, generation, epoch, &counter);
	if (memory == CGN_MEMORY_NONE || cgn_is_viewed(control, sk, hook))
		return false;
	if (memory == CGN_MEMORY_ALLOW)
		cgn_count_known(slot, counter);
	return true;
}

#endif
