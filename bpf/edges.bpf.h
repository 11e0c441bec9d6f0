/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The edges of one state of an automaton, in cells of an image. Must not know what the automaton reads.
 */
#ifndef CGNETD_EDGES_BPF_H
#define CGNETD_EDGES_BPF_H

#include "image.bpf.h"

#define CGN_NO_STATE (~0ull)
#define CGN_EDGE_STEPS 9 /* 256 edges at most */

/* The state after `byte`: that of its edge among `count` from cell `first` on, or `otherwise`. CGN_NO_STATE: corrupt.
 */
static __always_inline __u64 cgn_follow(void *image, __u32 first, __u32 count, __u32 byte, __u32 otherwise)
{
	__u64 edge;

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
	return count ? CGN_NO_STATE : otherwise;
}

#endif
