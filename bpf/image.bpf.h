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

/* A half of a cell; `index` counts halves, in the order of memory. */
static __always_inline bool cgn_read_half(struct cgn_reader *reader, __u32 index, __u32 *half_cell)
{
	__u32 number = index / (2 * CGN_BLOCK_CELLS);

	if (number != reader->number) {
		reader->block = bpf_map_lookup_elem(reader->image, &number);
		if (!reader->block)
			return false;
		reader->number = number;
	}
	*half_cell = ((const __u32 *)reader->block->cell)[index % (2 * CGN_BLOCK_CELLS)];
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

/* The last of `count` sorted cells, from `first` on, that is at most `wanted`. */
static __always_inline bool cgn_bisect(struct cgn_reader *reader, __u32 first, __u32 count, __u64 wanted, __u64 *cell)
{
	for (int step = 0; step < CGN_BISECT_STEPS && count > 1; step++) {
		__u32 half = count >> 1;

		if (!cgn_read(reader, first + half, cell))
			return false;
		if (*cell <= wanted) {
			first += half;
			count -= half;
		} else {
			count = half;
		}
	}
	return count == 1 && cgn_read(reader, first, cell) && *cell <= wanted;
}

/*
 * Of `count` sorted entries of an address table, from `first` on, the last that begins at or before `wanted`; else the
 * first.
 */
static __always_inline bool cgn_bisect_entries(struct cgn_reader *reader, __u32 first, __u32 count, __u64 wanted,
					       __u64 *entry)
{
	for (int i = 0; i < CGN_BISECT_STEPS && count > 1; i++) {
		__u32 half = count >> 1;

		if (!cgn_read(reader, first + half, entry))
			return false;
		if ((*entry & (*entry - CGN_TABLE_STEP)) <= wanted) {
			first += half;
			count -= half;
		} else {
			count = half;
		}
	}
	return count == 1 && cgn_read(reader, first, entry);
}

/* The same of a dense list. */
static __always_inline bool cgn_bisect_halves(struct cgn_reader *reader, __u32 first, __u32 count, __u32 wanted,
					      __u32 step, __u32 *entry)
{
	for (int i = 0; i < CGN_BISECT_STEPS && count > 1; i++) {
		__u32 half = count >> 1;

		if (!cgn_read_half(reader, first + half, entry))
			return false;
		if ((*entry & (*entry - step)) <= wanted) {
			first += half;
			count -= half;
		} else {
			count = half;
		}
	}
	return count == 1 && cgn_read_half(reader, first, entry);
}

/* The answer of a span if it covers what is looked for, else row 0. Without a branch, which nothing would foresee. */
static __always_inline __u32 cgn_covered(__u64 span, __u64 wanted, __u64 step)
{
	__u64 key = span & -step, begin = key & (key - step);

	/* A difference that wraps is not below half of the span either. */
	return span & (step - 1) & (__s64)(((wanted - begin) >> 1) - (key - begin)) >> 63;
}

/* The row of an address, `bits` of it, in a dense list. */
static __always_inline bool cgn_dense_row(struct cgn_reader *reader, __u32 blob, __u64 node, __u64 bits, __u32 *row)
{
	__u32 count = CGN_LO(node) & ((1 << CGN_DENSE_SHIFT) - 1), span = CGN_HI(node);
	__u32 step = 1u << (CGN_LO(node) >> CGN_DENSE_SHIFT & 31);
	__u32 wanted = (__u32)(bits << CGN_NODE_SKIP(node) >> 32) | step | (step - 1);

	if (count && !cgn_bisect_halves(reader, 2 * blob + span, count, wanted, step, &span))
		return false;
	*row = cgn_covered(span, wanted, step);
	return true;
}

/* Follows index nodes, by the bits at the top of `high`, to a list or a row. */
static __always_inline bool cgn_indexed(struct cgn_reader *reader, __u32 blob, __u64 high, __u64 *node)
{
	for (int step = 0; step < CGN_TABLE_INDEXES && CGN_LO(*node) & CGN_NODE_INDEX; step++) {
		__u32 position = CGN_LO(*node) >> CGN_NODE_SHIFT & 63, bits = CGN_LO(*node) & 31;

		/* In two steps: a shift by 64 is undefined. */
		if (!cgn_read(reader, blob + CGN_HI(*node) + (__u32)(high << position >> 32 >> (32 - bits)), node))
			return false;
	}
	return !(CGN_LO(*node) & CGN_NODE_INDEX);
}

/* 64 bits of an address from one of its bits on, with zeros behind its last. */
static __always_inline __u64 cgn_bits(const __u64 address[2], __u32 from)
{
	if (from >= 64)
		return address[1] << (from & 63);
	return from ? address[0] << from | address[1] >> (64 - from) : address[0];
}

/* The row of an address, which begins with the bit `from`, in the table that begins with `node`. */
static __always_inline bool cgn_row(struct cgn_reader *reader, __u32 blob, __u64 node, const __u64 address[2],
				    __u32 from, __u32 *row)
{
	__u64 bits, entry;

	while (from < 128) { /* 4 lists at most, of CGN_TABLE_KEY_BITS */
		bits = cgn_bits(address, from);
		if (!cgn_indexed(reader, blob, bits, &node))
			return false;
		*row = CGN_HI(node) - 1; /* of a zero no row */
		if (!CGN_LO(node))
			return true;
		if (CGN_LO(node) & CGN_NODE_DENSE)
			return cgn_dense_row(reader, blob, node, bits, row);
		if (CGN_NODE_SKIP(node) > CGN_TABLE_SKIP)
			return false;
		bits = bits << CGN_NODE_SKIP(node) | (2 * CGN_TABLE_STEP - 1);
		if (!cgn_bisect_entries(reader, blob + CGN_HI(node), CGN_LO(node) & ((1 << CGN_NODE_SHIFT) - 1), bits,
					&entry))
			return false;
		*row = CGN_LO(node) & CGN_NODE_SPANS ? cgn_covered(entry, bits, CGN_TABLE_STEP)
						     : entry & (CGN_TABLE_STEP - 1);
		barrier_var(*row); /* one way on for both kinds of lists: verifiers follow each by itself */
		if (!(*row & CGN_TABLE_MORE))
			return true;
		from += CGN_NODE_SKIP(node) + CGN_TABLE_KEY_BITS;
		if (!cgn_read(reader, blob + (*row & ~CGN_TABLE_MORE), &node))
			return false;
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
