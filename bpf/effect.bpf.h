/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a rule does to a call that it lets pass, as the image and its live cells have it. Every read can fail, and a
 * failure means that the image cannot be right. Must not know of verdicts, or of what is done with an effect.
 */
#ifndef CGNETD_EFFECT_BPF_H
#define CGNETD_EFFECT_BPF_H

#include "call.bpf.h"
#include "image.bpf.h"

/*
 * A live cell. One that is not there is 0 like every thing that is not: a device, an address, a backend.
 */
static __always_inline __u64 cgn_live_cell(__u32 slot, __u32 index)
{
	void *live = bpf_map_lookup_elem(&cgn_live, &slot);
	__u64 *cell = live ? bpf_map_lookup_elem(live, &index) : NULL;

	return cell ? *(volatile __u64 *)cell : 0;
}

/* Where the effect of a rule is in the image. */
static __always_inline bool cgn_effect(const struct cgn_call *call, void *image, __u64 rule, __u32 *effect)
{
	__u64 effects, place;

	if (CGN_CELL_ID(rule) >= call->rule_count || !cgn_cell(image, CGN_IMAGE_EFFECTS, &effects) ||
	    !cgn_cell(image, CGN_LO(effects) + CGN_CELL_ID(rule), &place))
		return false;
	*effect = CGN_LO(place);
	return *effect != 0;
}

/* The flags of the effect at `effect`, CGN_EFFECT_*, and the service's id. */
static __always_inline bool cgn_effect_flags(void *image, __u32 effect, __u32 *flags, __u32 *service)
{
	__u64 cell;

	if (!cgn_cell(image, effect + CGN_EFFECT_FLAGS, &cell))
		return false;
	*flags = CGN_HI(cell);
	*service = CGN_LO(cell);
	return true;
}

/*
 * An address of a family and the number beside it, a port or a live cell: `first` is the cell of IPv4, with both in it,
 * and the three cells of IPv6 follow.
 */
static __always_inline bool cgn_effect_address(void *image, __u32 first, __u8 family, __u64 address[2], __u32 *number)
{
	__u64 cell;

	if (family != CGN_FAMILY_V4) {
		if (!cgn_cell(image, first + 1, &address[0]) || !cgn_cell(image, first + 2, &address[1]) ||
		    !cgn_cell(image, first + 3, &cell))
			return false;
	} else {
		if (!cgn_cell(image, first, &cell))
			return false;
		address[0] = 0;
		address[1] = CGN_HI(cell);
	}
	*number = CGN_LO(cell);
	return true;
}

_Static_assert(CGN_EFFECT_TO_V6 == CGN_EFFECT_TO_V4 + 1 && CGN_EFFECT_SOURCE_V6 == CGN_EFFECT_SOURCE_V4 + 1,
	       "cgn_effect_address");

/* The name that the effect of a rule on UNIX sockets gives, into `name`. */
static __always_inline bool cgn_effect_name(void *image, __u32 effect, struct cgn_name *name)
{
	__u64 cell;

	if (!cgn_cell(image, effect + CGN_EFFECT_NAME, &cell) || !CGN_LO(cell) || CGN_LO(cell) > CGN_UNIX_NAME_MAX)
		return false;
	name->length = CGN_LO(cell);
	for (__u32 i = 0; i < CGN_UNIX_NAME_BYTES / sizeof(cell); i++) {
		if (!cgn_cell(image, effect + CGN_EFFECT_NAME + 1 + i, &cell))
			return false;
		__builtin_memcpy(&name->bytes[i * sizeof(cell)], &cell, sizeof(cell));
	}
	return true;
}

#endif
