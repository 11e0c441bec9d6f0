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

/* An image and the block of it that was read last. Cells that are read one after the other are mostly in one. */
struct cgn_reader {
	void *image;
	struct cgn_block *block;
	__u32 number;
};

/* Begins to read the image of a slot, at its header. */
static __always_inline bool cgn_read_from(struct cgn_reader *reader, __u32 slot)
{
	reader->number = 0;
	reader->image = cgn_image(slot);
	if (!reader->image)
		return false;
	reader->block = bpf_map_lookup_elem(reader->image, &reader->number);
	return reader->block;
}

static __always_inline bool cgn_read(struct cgn_reader *reader, __u32 index, __u64 *cell)
{
	__u32 number = index / CGN_BLOCK_CELLS;

	if (number != reader->number) {
		reader->block = bpf_map_lookup_elem(reader->image, &number);
		if (!reader->block)
			return false;
		reader->number = number;
	}
	*cell = reader->block->cell[index % CGN_BLOCK_CELLS];
	return true;
}

/* One cell by itself. */
static __always_inline bool cgn_cell(void *image, __u32 index, __u64 *cell)
{
	__u32 number = index / CGN_BLOCK_CELLS;
	struct cgn_block *block = bpf_map_lookup_elem(image, &number);

	if (!block)
		return false;
	*cell = block->cell[index % CGN_BLOCK_CELLS];
	return true;
}

/*
 * The answer (low half) of the last entry whose high half is at most `key`, among `count` cells from `first` on,
 * sorted.
 */
static __always_inline bool cgn_bisect(struct cgn_reader *reader, __u32 first, __u32 count, __u32 key, __u32 *answer)
{
	__u64 cell;

	for (int step = 0; step < CGN_BISECT_STEPS && count > 1; step++) {
		__u32 half = count >> 1;

		if (!cgn_read(reader, first + half, &cell))
			return false;
		if (CGN_HI(cell) <= key) {
			first += half;
			count -= half;
		} else {
			count = half;
		}
	}
	if (count != 1 || !cgn_read(reader, first, &cell) || CGN_HI(cell) > key)
		return false;
	*answer = CGN_LO(cell);
	return true;
}

/* The row of an address, in the table that the header cell `table` names. */
static __always_inline bool cgn_row4(struct cgn_reader *reader, __u32 blob, __u64 table, __u32 address, __u32 *row)
{
	__u32 bits = CGN_LO(table);
	__u64 root;

	if (bits > 16)
		return false;
	if (!cgn_read(reader, blob + CGN_HI(table) + (__u32)((__u64)address >> (32 - bits)), &root))
		return false;
	*row = CGN_HI(root) - 1; /* of a zero no row */
	return !CGN_LO(root) || cgn_bisect(reader, blob + CGN_HI(root), CGN_LO(root), address, row);
}

/* The same by strides: a list of what the first 16 bits can be, then lists of what the next 32 can be. */
static __always_inline bool cgn_row6(struct cgn_reader *reader, __u32 blob, __u64 table, const __u64 address[2],
				     __u32 *row)
{
	__u64 high = address[0] << 16 | address[1] >> 48, low = address[1] << 16, list;
	__u32 key = address[0] >> 48, answer;

	if (CGN_LO(table) || !cgn_read(reader, blob + CGN_HI(table), &list))
		return false;
	*row = CGN_HI(list) - 1; /* of a zero no row */
	if (!CGN_LO(list))
		return true;
	for (int stride = 0; stride < CGN_STRIDES; stride++) {
		if (!cgn_bisect(reader, blob + CGN_HI(list), CGN_LO(list), key, &answer))
			return false;
		*row = answer;
		if (!(answer & CGN_STRIDE_MORE))
			return true;
		if (!cgn_read(reader, blob + (answer & ~CGN_STRIDE_MORE), &list))
			return false;
		key = high >> 32;
		high = high << 32 | low >> 32;
		low <<= 32;
	}
	return false;
}

/* Whether a cell can be that of this rule. */
static __always_inline bool cgn_rule_is_right(__u64 rule, __u32 id)
{
	return CGN_CELL_ID(rule) == id && CGN_CELL_ACTION(rule) >= CGN_ACTION_ALLOW &&
	       CGN_CELL_ACTION(rule) <= CGN_ACTION_REWRITE;
}

#endif
