/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How the policies of a socket's cgroup tune its TCP connection. Must not know when the kernel asks.
 *
 * There is no task here: what counts is the cgroup of the socket. Of each setting the first policy in the chain that
 * enforces and has it counts. Where anything is missing, nothing is tuned.
 */
#ifndef CGNETD_TCP_BPF_H
#define CGNETD_TCP_BPF_H

#include "identity.bpf.h"
#include "image.bpf.h"

struct cgn_tuning {
	__u64 congestion[2]; /* name, NUL-padded; all zero: the kernel's own, as the others */
	__u32 rto_ms;
	__u32 window; /* segments */
};

/* What one policy adds to what those before it said. */
__weak __noinline int cgn_tune_by(struct cgn_tuning *tuning, __u32 slot, __u32 policy)
{
	__u32 header = CGN_IMAGE_HEADER + policy * CGN_POLICY_CELLS;
	__u64 counts, flags, numbers, name[2];
	void *image = cgn_image(slot);

	if (!tuning || !image || !cgn_cell(image, CGN_IMAGE_COUNTS, &counts) || policy >= CGN_HI(counts) ||
	    !cgn_cell(image, header + CGN_POLICY_FLAGS, &flags))
		return 0;
	if (CGN_HI(flags) & CGN_POLICY_AUDIT || !(CGN_HI(flags) & CGN_POLICY_TUNES_TCP))
		return 0;
	if (!cgn_cell(image, header + CGN_POLICY_TCP, &numbers) ||
	    !cgn_cell(image, header + CGN_POLICY_CONGESTION, &name[0]) ||
	    !cgn_cell(image, header + CGN_POLICY_CONGESTION + 1, &name[1]))
		return 0;
	tuning->rto_ms = tuning->rto_ms ?: CGN_HI(numbers);
	tuning->window = tuning->window ?: CGN_LO(numbers);
	if (!tuning->congestion[0]) {
		tuning->congestion[0] = name[0];
		tuning->congestion[1] = name[1];
	}
	return 0;
}

static __always_inline bool cgn_image_is_of(__u32 slot, __u32 generation)
{
	void *image = cgn_image(slot);
	__u64 fallback;

	return image && cgn_cell(image, CGN_IMAGE_DEFAULT, &fallback) && CGN_HI(fallback) == generation;
}

/* The label that judges for a socket `sk` (its address in the kernel) of a cgroup. False: nothing governs it. */
static __always_inline bool cgn_label_of_socket(void *sk, __u64 cgroup_id, __u32 slot, __u32 generation,
						struct cgn_label *label)
{
	cgroup_id = cgn_judge_of_socket(sk, cgroup_id, slot, generation);
	return cgroup_id && cgn_stand(cgroup_id, slot, generation, label) == CGN_STANDING_GOVERNED;
}

/*
 * What this CPU remembers of a cgroup none of whose sockets is tuned: a family that no call has. The kernel
 * asks several times for each connection, of every cgroup.
 */
static const struct cgn_wanted cgn_untuned = {.what = CGN_WHAT(0, 255, 0, 0)};

/* How a socket is tuned by the generation in force. False: not at all. */
static __always_inline bool cgn_find_tuning(void *sk, struct cgn_tuning *tuning)
{
	struct cgn_control *control;
	__u32 zero = 0, slot, generation, place;
	struct cgn_memo memo = {};
	struct cgn_cached *entry;
	struct cgn_label label;

	control = bpf_map_lookup_elem(&cgn_control, &zero);
	if (!control)
		return false;
	slot = *(volatile __u32 *)&control->active & (CGN_SLOTS - 1);
	generation = control->generation[slot];
	memo.era = cgn_era(generation, *(volatile __u32 *)&control->epoch);
	if (!generation)
		return false;
	memo.task_id = cgn_socket_cgroup_id(sk);
	place = cgn_place_of_call(cgn_hash_of_call(memo.task_id, &cgn_untuned));
	entry = cgn_cached_at(place);
	if (entry && cgn_says_allow(entry, &cgn_untuned, memo.task_id, memo.era, &memo.counter))
		return false;
	__builtin_memset(tuning, 0, sizeof(*tuning));
	if (cgn_label_of_socket(sk, memo.task_id, slot, generation, &label)) {
		if (!cgn_image_is_of(slot, generation))
			return false;
		for (__u32 i = 0; i < CGN_CHAIN_MAX && i < label.governing; i++)
			cgn_tune_by(tuning, slot, label.policy[i]);
	}
	if (tuning->congestion[0] || tuning->rto_ms || tuning->window)
		return true;
	cgn_keep_at(place, &cgn_untuned, &memo);
	return false;
}

#endif
