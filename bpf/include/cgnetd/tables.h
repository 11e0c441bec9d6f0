/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tables of an image: from an address to a row, from a row and a port to a rule. Part of the contract, included by
 * cgnetd/abi.h.
 *
 * Address table: a cell of the policy header is its first node. A node is about the next bits of an address, 64 at a
 * time:
 *
 *   row     `row + 1 | 0`: one row holds for all.
 *   index   `offset in the blob of 2^bits nodes | CGN_NODE_INDEX + position << CGN_NODE_SHIFT + bits`: the bits behind
 *           the first `position` ones say which node is next.
 *   list    `offset in the blob of the first entry | CGN_NODE_SPANS if it is of spans + skip << CGN_NODE_SHIFT +
 *           entry count`: sorted cells, keys of 39 bits behind the first `skip` ones.
 *   dense   `offset in the blob of the first entry, in half cells | CGN_NODE_DENSE + skip << CGN_NODE_SHIFT +
 *           answer bits << CGN_DENSE_SHIFT + entry count`: spans in half cells, two a cell in the order of memory, keys
 *           of as many bits as are left. With a count of 0 the only entry is in place of the offset.
 *
 * Entry: a key, one more bit, and the answer in the lowest bits: of a cell those below CGN_TABLE_STEP. In a list of
 * starts it is a key from which on the answer holds, until the next entry, and the bit behind is set; the first entry
 * is at or before all that is looked for. In one of spans it is the middle of an aligned block of keys, for which the
 * answer holds. So without its lowest bit that is set each key is where its entry begins, and of spans that bit is half
 * of the block's size. What no span covers has row 0.
 *
 * Answer: a row, or CGN_TABLE_MORE + the offset in the blob of a node about the bits behind this key. Zeros follow the
 * last bit of an address. Neighbouring nodes may share entries.
 *
 * Rows: as many cells each as there are columns. CGN_COLUMN() of the header's columns cell is that of a context, and
 * CGN_COLUMNS() how many there are. Before row 0 stands one more, for rules on any address and for the default: the
 * reference for a call is the earlier one of what that row says and what the row of its address says.
 *
 * Cell of a row: `rule reference | 0` for all ports, `CGN_PORTS_RANGE + rule reference | first port << 16 + last port`
 * for these alone, or a port list, `offset in the blob | entry count`: entries `first port | rule reference`, sorted,
 * the first at or before all ports that are looked for. Or an index, `offset in the blob | CGN_PORTS_INDEX + shift`:
 * the port shifted to the right says which of the cells there is next, a reference or a list.
 */
#ifndef CGNETD_TABLES_H
#define CGNETD_TABLES_H

#define CGN_NODE_INDEX 0x80000000u
#define CGN_NODE_DENSE 0x40000000u
#define CGN_NODE_SPANS 0x20000000u
#define CGN_NODE_SHIFT 24
#define CGN_NODE_SKIP(node) ((__u32)(node) >> CGN_NODE_SHIFT & 31)
#define CGN_DENSE_SHIFT 16
#define CGN_TABLE_KEY_BITS 39
#define CGN_TABLE_STEP 0x1000000ull
#define CGN_TABLE_MORE 0x800000u
#define CGN_TABLE_SKIP 24 /* at most */
#define CGN_TABLE_LISTS 4 /* of an address, at most */
#define CGN_TABLE_INDEXES 8 /* that follow each other, at most */

#define CGN_PORTS_RANGE 0x80000000u
#define CGN_PORTS_INDEX 0x80000000u
#define CGN_COLUMN(columns, context) ((__u32)((columns) >> ((context)*4)) & 15)
#define CGN_COLUMNS(columns) ((__u32)((columns) >> 60))

#endif
