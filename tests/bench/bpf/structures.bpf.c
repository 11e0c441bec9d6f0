// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look-ups of addresses in structures that were weighed against ours: a root by the top bits with a bisection below it,
 * and a trie of six bits a step whose nodes are bit vectors. Prototypes, for the benchmark alone; each has an array of
 * its own, which is read without a call.
 */
#include "lookup.bpf.c"

#define STRUCTURES_LEAF (1ull << 63)
#define STRUCTURES_STEPS 19 /* of six bits, behind 16 */

#define STRUCTURES_MAP(name)                                                                                           \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                      \
		__uint(max_entries, 1);                                                                                \
		__uint(map_flags, BPF_F_MMAPABLE);                                                                     \
		__type(key, __u32);                                                                                    \
		__type(value, __u64);                                                                                  \
	} name SEC(".maps")
STRUCTURES_MAP(structures_root);
STRUCTURES_MAP(structures_trie);

static __always_inline __u64 structures_cell(void *map, __u32 index)
{
	__u64 *cell = bpf_map_lookup_elem(map, &index);

	return cell ? *cell : 0;
}

/* Whether the entry at `at` is at or before the address: IPv4 `start | answer`, IPv6 start in two cells, answer. */
static __always_inline bool structures_begins(__u32 at, __u8 family, const __u64 address[2])
{
	__u64 start = structures_cell(&structures_root, at);

	if (family == CGN_FAMILY_V4)
		return start <= (address[1] << 32 | ~0u);
	if (start != address[0])
		return start < address[0];
	return structures_cell(&structures_root, at + 1) <= address[1];
}

/* Cell 0: the root's bits; then the root: `first entry | count`, or `answer | 0`; then the entries. */
static __always_inline __u32 structures_bisect(const struct lookup_key *key)
{
	__u32 width = key->family == CGN_FAMILY_V4 ? 1 : 3, half, first, count;
	__u64 high = key->family == CGN_FAMILY_V4 ? key->address[1] << 32 : key->address[0], root;

	/* In two steps: a shift by 64 is undefined. */
	root = high >> 1 >> (63 - (structures_cell(&structures_root, 0) & 31));
	root = structures_cell(&structures_root, 1 + root);
	first = CGN_HI(root);
	count = CGN_LO(root);
	if (!count)
		return first;
	for (int step = 0; step < CGN_BISECT_STEPS && count > 1; step++) {
		half = count >> 1;
		if (structures_begins(first + half * width, key->family, key->address)) {
			first += half * width;
			count -= half;
		} else {
			count = half;
		}
	}
	return structures_cell(&structures_root, first + width - 1);
}
LOOKUP_PROGRAM(structures_bisected, structures_bisect)

/*
 * 2^16 cells of the first bits, each STRUCTURES_LEAF + answer, or a node: which slots have a node, at which a run of
 * equal answers begins, `first node | first answer`.
 */
static __always_inline __u32 structures_walk(const struct lookup_key *key)
{
	__u32 from = key->family == CGN_FAMILY_V4 ? 96 : 0;
	__u64 at = structures_cell(&structures_trie, cgn_bits(key->address, from) >> 48), nodes, answers, firsts, upto;

	from += 16;
	for (int step = 0; step < STRUCTURES_STEPS && !(at & STRUCTURES_LEAF) && from < 128; step++) {
		__u32 slot = cgn_bits(key->address, from) >> 58;

		upto = (2ull << slot) - 1;
		nodes = structures_cell(&structures_trie, at);
		firsts = structures_cell(&structures_trie, at + 2);
		if (nodes >> slot & 1) {
			at = CGN_HI(firsts) + 3 * (__builtin_popcountll(nodes & upto) - 1);
		} else {
			answers = structures_cell(&structures_trie, at + 1);
			at = CGN_LO(firsts) + __builtin_popcountll(answers & upto) - 1;
			at = structures_cell(&structures_trie, at) | STRUCTURES_LEAF;
		}
		from += 6;
	}
	return at;
}
LOOKUP_PROGRAM(structures_walked, structures_walk)
