/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Address tables of an image: from an address to the number of a row. Part of the contract, included by cgnetd/abi.h.
 *
 * A cell of the policy header is the first node of a table. A node is about the next bits of an address, 64 at a time:
 *
 *   row     `row + 1 | 0`: one row holds for all.
 *   index   `offset in the blob of 2^bits nodes | CGN_NODE_INDEX + position << CGN_NODE_SHIFT + bits`: the bits behind
 *           the first `position` ones say which node is next.
 *   list    `offset in the blob of the first entry | skip << CGN_NODE_SHIFT + entry count`: entries sorted by a key of
 *           39 bits, those behind the first `skip` ones. The first is at or before all that is looked for.
 *
 * Entry: key << CGN_TABLE_ANSWER_BITS | answer, a row or CGN_TABLE_MORE + the offset in the blob of a node about the
 * bits behind the key. Zeros follow the last bit of an address. Neighbouring nodes may share entries.
 */
#ifndef CGNETD_TABLES_H
#define CGNETD_TABLES_H

#define CGN_NODE_INDEX 0x80000000u
#define CGN_NODE_SHIFT 24
#define CGN_TABLE_KEY_BITS 39
#define CGN_TABLE_ANSWER_BITS 25
#define CGN_TABLE_MORE 0x1000000u
#define CGN_TABLE_SKIP 24 /* at most */
#define CGN_TABLE_LISTS 4 /* of an address, at most */
#define CGN_TABLE_INDEXES 8 /* that follow each other, at most */

#endif
