/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading the compiled image: cells, bisection, address tables, rows, port lists, rule cells. Every read can fail, and
 * a failure means that the image cannot be right. Must not know of identities, chains, or what a verdict leads to.
 */
#ifndef CGNETD_IMAGE_BPF_H
#define CGNETD_IMAGE_BPF_H

#include "maps.bpf.h"

/* The fields of a rule cell's low half. Bit 15 is never set in an image: it marks a cell read from an audit policy. */
#define CGN_RULE_CELL(id, errno_, flags, action) ((__u64)(id) << 32 | (errno_) << 16 | (flags) << 8 | (action))
#define CGN_CELL_ID(cell) CGN_HI(cell)
#define CGN_CELL_ERRNO(cell) (CGN_LO(cell) >> 16)
#define CGN_CELL_FLAGS(cell) (CGN_LO(cell) >> 8 & 0x7f)
#define CGN_CELL_ACTION(cell) (CGN_LO(cell) & 0xff)
#define CGN_CELL_AUDIT (1ull << 15)

#define CGN_EPERM 1
#define CGN_CELL_DENY(id) CGN_RULE_CELL(id, CGN_EPERM, CGN_RULE_LOG, CGN_ACTION_DENY)
#define CGN_CELL_CORRUPT CGN_CELL_DENY(CGN_RULE_CORRUPT)
#define CGN_CELL_UNDECIDED CGN_RULE_CELL(CGN_RULE_DEFAULT, 0, 0, CGN_ACTION_ALLOW)

/* Where a rule is counted on this CPU, in the counters of a slot. */
static __always_inline __u32 cgn_counter_place(__u32 rule_count, __u64 rule, __u32 kind)
{
	return (bpf_get_smp_processor_id() * rule_count + CGN_CELL_ID(rule)) * CGN_COUNT_KINDS + kind;
}

static __always_inline void *cgn_image(__u32 slot)
{
	return bpf_map_lookup_elem(&cgn_images, &slot);
}

static __always_inline bool cgn_cell(void *image, __u32 index, __u64 *cell)
{
	__u64 *found = bpf_map_lookup_elem(image, &index);

	if (!found)
		return false;
	*cell = *found;
	return true;
}

/*
 * The answer (low half) of the last entry whose high half is at most `key`, among `count` cells from `first` on,
 * sorted.
 */
static __always_inline bool cgn_bisect(void *image, __u32 first, __u32 count, __u32 key, __u32 *answer)
{
	__u64 cell;

	for (int step = 0; step < CGN_BISECT_STEPS && count > 1; step++) {
		__u32 half = count >> 1;

		if (!cgn_cell(image, first + half, &cell))
			return false;
		if (CGN_HI(cell) <= key) {
			first += half;
			count -= half;
		} else {
			count = half;
		}
	}
	if (count != 1 || !cgn_cell(image, first, &cell) || CGN_HI(cell) > key)
		return false;
	*answer = CGN_LO(cell);
	return true;
}

/* Whether the IPv6 entry at `entry` starts at or before the address. */
static __always_inline bool cgn_starts_before(void *image, __u32 entry, const __u64 address[2], bool *before)
{
	__u64 high, low;

	if (!cgn_cell(image, entry, &high) || !cgn_cell(image, entry + 1, &low))
		return false;
	*before = high < address[0] || (high == address[0] && low <= address[1]);
	return true;
}

/* cgn_bisect() over the three-cell entries of an IPv6 table. */
static __always_inline bool cgn_bisect6(void *image, __u32 first, __u32 count, const __u64 address[2], __u32 *row)
{
	bool before;
	__u64 cell;

	for (int step = 0; step < CGN_BISECT_STEPS && count > 1; step++) {
		__u32 half = count >> 1;

		if (!cgn_starts_before(image, first + half * 3, address, &before))
			return false;
		if (before) {
			first += half * 3;
			count -= half;
		} else {
			count = half;
		}
	}
	if (count != 1 || !cgn_starts_before(image, first, address, &before) || !before)
		return false;
	if (!cgn_cell(image, first + 2, &cell))
		return false;
	*row = CGN_LO(cell);
	return true;
}

/* The row of an address, in the table that the header cell `table` names. */
static __always_inline bool cgn_row4(void *image, __u32 blob, __u64 table, __u32 address, __u32 *row)
{
	__u32 bits = CGN_LO(table);
	__u64 root;

	if (bits > 16)
		return false;
	if (!cgn_cell(image, blob + CGN_HI(table) + (__u32)((__u64)address >> (32 - bits)), &root))
		return false;
	return cgn_bisect(image, blob + CGN_HI(root), CGN_LO(root), address, row);
}

static __always_inline bool cgn_row6(void *image, __u32 blob, __u64 table, const __u64 address[2], __u32 *row)
{
	__u32 bits = CGN_LO(table);
	__u64 root;

	if (bits > 16)
		return false;
	/* In two steps: a shift by 64 is undefined. */
	if (!cgn_cell(image, blob + CGN_HI(table) + (__u32)(address[0] >> 1 >> (63 - bits)), &root))
		return false;
	return cgn_bisect6(image, blob + CGN_HI(root), CGN_LO(root), address, row);
}

/* Whether a cell can be that of this rule. */
static __always_inline bool cgn_rule_is_right(__u64 rule, __u32 id)
{
	return CGN_CELL_ID(rule) == id && CGN_CELL_ACTION(rule) >= CGN_ACTION_ALLOW &&
	       CGN_CELL_ACTION(rule) <= CGN_ACTION_REWRITE;
}

#endif
