/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One step of the subject automaton in the image. Must not know of cgroups or labels.
 */
#ifndef CGNETD_AUTOMATON_BPF_H
#define CGNETD_AUTOMATON_BPF_H

#include "edges.bpf.h"

static __always_inline bool cgn_state(void *image, __u32 state, __u64 *head, __u64 *edges)
{
	__u64 states;
	__u32 cell;

	if (!cgn_cell(image, CGN_IMAGE_STATES, &states) || state >= CGN_LO(states))
		return false;
	cell = CGN_HI(states) + state * CGN_STATE_CELLS;
	return cgn_cell(image, cell, head) && cgn_cell(image, cell + 1, edges);
}

/* The state after one byte, or CGN_NO_STATE for an image that cannot be right. */
__weak __noinline __u64 cgn_step(__u32 slot, __u32 state, __u32 byte)
{
	void *image = cgn_image(slot);
	__u64 head, edges;

	if (!image || !cgn_state(image, state, &head, &edges))
		return CGN_NO_STATE;
	return cgn_follow(image, CGN_HI(edges), CGN_LO(edges), byte, CGN_HI(head));
}

#endif
