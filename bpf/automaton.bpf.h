/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One step of the subject automaton in the image. Must not know of cgroups or labels.
 */
#ifndef CGNETD_AUTOMATON_BPF_H
#define CGNETD_AUTOMATON_BPF_H

#include "image.bpf.h"

#define CGN_NO_STATE (~0ull)
#define CGN_EDGE_STEPS 9 /* 256 edges at most */

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
__noinline __u64 cgn_step(__u32 slot, __u32 state, __u32 byte)
{
	__u64 head, edges, edge;
	__u32 first, count;
	void *image = cgn_image(slot);

	if (!image || !cgn_state(image, state, &head, &edges))
		return CGN_NO_STATE;
	first = CGN_HI(edges);
	count = CGN_LO(edges);
	for (int step = 0; step < CGN_EDGE_STEPS && count; step++) {
		__u32 half = count >> 1;

		if (!cgn_cell(image, first + half, &edge))
			return CGN_NO_STATE;
		if (CGN_HI(edge) == byte)
			return CGN_LO(edge);
		if (CGN_HI(edge) < byte) {
			first += half + 1;
			count -= half + 1;
		} else {
			count = half;
		}
	}
	return count ? CGN_NO_STATE : CGN_HI(head);
}

#endif
