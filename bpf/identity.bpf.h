/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whose call it is: the cgroup of the calling task and the one of the socket, and whether anything governs either. A
 * call that nothing governs leaves here. Must not know of hooks or of what a policy says.
 *
 * A socket's cgroup is no field of a program's context. Where the kernel has bpf_rdonly_cast() (6.2), the members of
 * struct sock are plain loads; elsewhere the address of the socket is taken from the stack, where it was spilled, and
 * its members are read by bpf_probe_read_kernel(). Both see every socket, also those made before the programs came.
 */
#ifndef CGNETD_IDENTITY_BPF_H
#define CGNETD_IDENTITY_BPF_H

#include "cache.bpf.h"
#include "kernel_types.bpf.h"
#include "verdict.bpf.h"
#include <bpf/bpf_core_read.h>

#define CGN_DEPTH_MAX 32 /* of cgroups between a removed one and its nearest labelled ancestor */

/* Set before loading. A branch on a constant 0 is dead code, which the verifier removes with the call in it. */
const volatile __u8 cgn_has_rdonly_cast = 0;

extern void *bpf_rdonly_cast(const void *object, __u32 type_id) __ksym __weak;

/* On a stack of its own. */
CGN_STATIC_NOINLINE __u64 cgn_probe_cgroup_id(void *sk)
{
	return BPF_CORE_READ(cgn_kernel_socket(sk), sk_cgrp_data.cgroup, kn, id);
}

static __always_inline __u64 cgn_socket_cgroup_id(void *sk)
{
	if (cgn_has_rdonly_cast) {
		struct sock *cast = bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct sock));

		return cast->sk_cgrp_data.cgroup->kn->id;
	}
	return cgn_probe_cgroup_id(sk);
}

/* Whether the socket is of the calling task's cgroup, whose id is told in any case. */
static __always_inline bool cgn_is_own_socket(void *sk, __u64 *task_id)
{
	struct cgroup *cgroup;
	struct sock *cast;

	if (!cgn_has_rdonly_cast) {
		*task_id = bpf_get_current_cgroup_id();
		return cgn_socket_cgroup_id(sk) == *task_id;
	}
	cgroup = ((struct task_struct *)bpf_get_current_task_btf())->cgroups->dfl_cgrp;
	cast = bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct sock));
	*task_id = cgroup->kn->id;
	return cast->sk_cgrp_data.cgroup == cgroup;
}

/* Whether nothing governs a cgroup, as far as this CPU remembers. */
static __always_inline bool cgn_is_quiet(__u64 task_id, __u32 generation, __u32 epoch)
{
	const struct cgn_cached *entry = cgn_cached_at(cgn_place_of_cgroup(task_id));

	return entry && cgn_says_quiet(entry, task_id, cgn_era(generation, epoch));
}

/* Whether the socket takes IPv6 only (IPV6_V6ONLY). */
static __always_inline bool cgn_socket_is_v6_only(void *sk)
{
	struct sock *kernel_socket = cgn_kernel_socket(sk);

	return BPF_CORE_READ_BITFIELD_PROBED(kernel_socket, __sk_common.skc_ipv6only);
}

/*
 * The IPv4 source of the socket's packets, network order. Not the address it is bound to: for a multicast or broadcast
 * one the kernel takes the device's.
 */
static __always_inline __be32 cgn_socket_source4(void *sk)
{
	return BPF_CORE_READ((struct inet_sock *)cgn_kernel_socket(sk), inet_saddr);
}

/* How a cgroup stands, without its label. Verified once: the walk up calls it at each step. */
__weak __noinline int cgn_standing_of(__u64 cgroup_id, __u32 slot, __u32 generation)
{
	struct cgn_label label;

	return cgn_stand(cgroup_id, slot, generation, &label);
}

/* How the nearest ancestor of the socket's cgroup that has a label stands; its id into `judge_id`. */
static __noinline int cgn_standing_of_ancestor(void *sk, __u32 slot, __u32 generation, __u64 *judge_id)
{
	struct cgroup *cgroup = BPF_CORE_READ(cgn_kernel_socket(sk), sk_cgrp_data.cgroup);
	int standing;

	for (int depth = 0; depth < CGN_DEPTH_MAX; depth++) {
		cgroup = BPF_CORE_READ(cgroup, self.parent, cgroup);
		if (!cgroup)
			break;
		*judge_id = BPF_CORE_READ(cgroup, kn, id);
		standing = cgn_standing_of(*judge_id, slot, generation);
		if (standing != CGN_STANDING_ABSENT)
			return standing;
	}
	return CGN_STANDING_ABSENT;
}

/* The task's standing; its label into `label`. A missing label below the managed root is a fault, and denies. */
static __always_inline enum cgn_standing cgn_stand_of_task(const struct cgn_control *control, __u64 task_id, __u32 slot,
							   __u32 generation, struct cgn_label *label)
{
	enum cgn_standing standing = cgn_stand(task_id, slot, generation, label);

	if (standing != CGN_STANDING_ABSENT)
		return standing;
	if (bpf_get_current_ancestor_cgroup_id(control->root_level) == control->root_id)
		return CGN_STANDING_UNLABELLED;
	return CGN_STANDING_ABSENT;
}

/* The cgroup that judges for a socket of another cgroup than the task's; 0 if none does. */
static __always_inline __u64 cgn_judge_of_socket(void *sk, __u64 socket_id, __u32 slot, __u32 generation)
{
	__u64 judge_id = socket_id;
	int standing = cgn_standing_of(socket_id, slot, generation);

	if (standing == CGN_STANDING_ABSENT)
		standing = cgn_standing_of_ancestor(sk, slot, generation, &judge_id);
	return standing == CGN_STANDING_GOVERNED ? judge_id : 0;
}

/*
 * Begins a call: who makes it, and under which generation. False if nothing is in force, or nothing known to govern the
 * call. `sk` is NULL for a socket that is being made: it is the task's. `owner_id`: the cgroup of task and socket, if
 * it is known to be one that something may govern; else 0. `views`: whether sockets can hold views; then the call is
 * made anyway, for its address.
 */
static __always_inline bool cgn_begin_as(struct cgn_call *call, void *sk, __u64 owner_id, bool *views)
{
	__u32 zero = 0, slot, generation, epoch;
	__u64 task_id = owner_id, socket_id;
	struct cgn_control *control;
	bool goes_on;

	*views = false;
	control = bpf_map_lookup_elem(&cgn_control, &zero);
	if (!control)
		return false;
	slot = *(volatile __u32 *)&control->active & (CGN_SLOTS - 1);
	generation = control->generation[slot];
	epoch = *(volatile __u32 *)&control->epoch;
	*views = *(volatile __u32 *)&control->flags & CGN_CONTROL_VIEWS;
	if (!generation && !*views)
		return false;
	if (!task_id)
		task_id = bpf_get_current_cgroup_id();
	socket_id = owner_id || !sk ? task_id : cgn_socket_cgroup_id(sk);
	goes_on = generation && (owner_id || socket_id != task_id || !cgn_is_quiet(task_id, generation, epoch));
	if (!goes_on && !*views)
		return false;
	__builtin_memset(call, 0, offsetof(struct cgn_call, label));
	call->slot = slot;
	call->generation = generation;
	call->epoch = epoch;
	call->task_id = task_id;
	call->socket_id = socket_id;
	return goes_on;
}

/* The same of any call. */
static __always_inline bool cgn_begin_seeing(struct cgn_call *call, void *sk, bool *views)
{
	return cgn_begin_as(call, sk, 0, views);
}

/* The same, for hooks that have no views to keep. */
static __always_inline bool cgn_begin(struct cgn_call *call, void *sk)
{
	bool views;

	return cgn_begin_seeing(call, sk, &views);
}

/* Looks the labels up. False if nothing governs the call. */
static __always_inline bool cgn_identify(struct cgn_call *call, void *sk)
{
	struct cgn_control *control;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(&cgn_control, &zero);
	if (!control)
		return false;
	call->standing = cgn_stand_of_task(control, call->task_id, call->slot, call->generation, &call->label);
	if (call->standing != CGN_STANDING_GOVERNED)
		__builtin_memset(&call->label, 0, sizeof(call->label));
	if (call->socket_id != call->task_id)
		call->judge_id = cgn_judge_of_socket(sk, call->socket_id, call->slot, call->generation);
	return call->standing >= CGN_STANDING_GOVERNED || call->judge_id;
}

#endif
