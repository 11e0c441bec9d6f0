/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The label of a new cgroup, from its parent's and its name: a run of the subject automaton, then insertion of the
 * policies that match here into the parent's chain. datapath/label.py does the same for cgroups that exist already.
 * Must not know of tracepoints or sockets.
 *
 * The work area is one static variable: cgroups are made one at a time (the tracepoint fires under cgroup_mutex and
 * a spin lock of its own), and a label does not fit on the stack beside the rest.
 */
#ifndef CGNETD_INHERIT_BPF_H
#define CGNETD_INHERIT_BPF_H

#include "automaton.bpf.h"

static struct {
	struct cgn_entry parent;
	struct cgn_entry child;
	char name[CGN_NAME_MAX];
	__u16 governing[CGN_CHAIN_MAX];
	__u16 excluded[CGN_CHAIN_MAX];
	__u32 governing_count;
	__u32 excluded_count;
	__u32 overflow;
} cgn_work;

/* The state after '/' and the new cgroup's name. */
__weak __noinline __u64 cgn_run(__u32 slot, __u32 state)
{
	__u64 next = cgn_step(slot, state, '/');

	for (__u32 i = 0; i < CGN_NAME_MAX && next != CGN_NO_STATE; i++) {
		if (!cgn_work.name[i])
			break;
		next = cgn_step(slot, next, (__u8)cgn_work.name[i]);
	}
	return next;
}

static __always_inline bool cgn_has(const __u16 *list, __u32 count, __u32 policy)
{
	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < count; i++)
		if (list[i] == policy)
			return true;
	return false;
}

static __always_inline void cgn_append(__u16 *list, __u32 *count, __u32 policy)
{
	if (*count >= CGN_CHAIN_MAX || cgn_work.governing_count + cgn_work.excluded_count >= CGN_CHAIN_MAX) {
		cgn_work.overflow = 1;
		return;
	}
	list[*count] = policy;
	*count += 1;
}

__weak __noinline int cgn_exclude(__u32 policy)
{
	if (!cgn_has(cgn_work.excluded, cgn_work.excluded_count, policy))
		cgn_append(cgn_work.excluded, &cgn_work.excluded_count, policy);
	return 0;
}

/* Puts a policy of the tier at the end of the chain, unless it is there already or excluded. False: a corrupt image. */
__weak __noinline int cgn_govern(__u32 slot, __u32 policy, __u32 tier)
{
	__u32 header = CGN_IMAGE_HEADER + policy * CGN_POLICY_CELLS;
	__u64 flags, counts;
	void *image = cgn_image(slot);

	if (!image || !cgn_cell(image, CGN_IMAGE_COUNTS, &counts) || policy >= CGN_HI(counts) ||
	    !cgn_cell(image, header + CGN_POLICY_FLAGS, &flags))
		return false;
	if (CGN_LO(flags) != tier || cgn_has(cgn_work.excluded, cgn_work.excluded_count, policy) ||
	    cgn_has(cgn_work.governing, cgn_work.governing_count, policy))
		return true;
	cgn_append(cgn_work.governing, &cgn_work.governing_count, policy);
	return true;
}

/* The parent's policies of one tier. */
__weak __noinline int cgn_govern_inherited(__u32 slot, __u32 tier)
{
	const struct cgn_label *parent = &cgn_work.parent.slot[slot & (CGN_SLOTS - 1)];

	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < parent->governing; i++)
		if (!cgn_govern(slot, parent->policy[i], tier))
			return false;
	return true;
}

/* The policies of one tier whose subject matches here: `count` cells from `first` on. */
__weak __noinline int cgn_govern_matching(__u32 slot, __u32 tier, __u32 first, __u32 count)
{
	void *image = cgn_image(slot);
	__u64 cell;

	if (!image)
		return false;
	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < count; i++)
		if (!cgn_cell(image, first + i, &cell) || !cgn_govern(slot, CGN_LO(cell), tier))
			return false;
	return true;
}

/*
 * One of the parent's exclusions, which stand behind its chain. On its own: inlined into a loop it makes clang fall
 * through from one turn to the next, which the verifier before 6.3 refuses as a "back-edge".
 */
__weak __noinline int cgn_exclude_inherited(__u32 slot, __u32 which)
{
	const struct cgn_label *parent = &cgn_work.parent.slot[slot & (CGN_SLOTS - 1)];
	__u32 place = parent->governing + which;

	if (which < parent->excluded && place < CGN_CHAIN_MAX)
		cgn_exclude(parent->policy[place]);
	return 0;
}

/* Exclusions last for good: the parent's, then the ones whose `not:` matches here. */
__weak __noinline int cgn_exclude_all(__u32 slot, __u32 first, __u32 count)
{
	const struct cgn_label *parent = &cgn_work.parent.slot[slot & (CGN_SLOTS - 1)];
	void *image = cgn_image(slot);
	__u64 cell;

	if (!image || parent->governing + parent->excluded > CGN_CHAIN_MAX)
		return false;
	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < parent->excluded; i++)
		cgn_exclude_inherited(slot, i);
	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < count; i++) {
		if (!cgn_cell(image, first + i, &cell))
			return false;
		cgn_exclude(CGN_LO(cell));
	}
	return true;
}

/* The chain in order of evaluation: what matches nearer the root comes first in the admin tier, last in the others. */
__weak __noinline int cgn_build_chain(__u32 slot, __u32 accept)
{
	void *image = cgn_image(slot);
	__u32 matching, excluding;
	__u64 cell = 0;

	cgn_work.governing_count = cgn_work.excluded_count = cgn_work.overflow = 0;
	if (!image || (accept && !cgn_cell(image, accept, &cell)))
		return false;
	matching = CGN_HI(cell);
	excluding = CGN_LO(cell);
	if (matching > CGN_CHAIN_MAX || excluding > CGN_CHAIN_MAX) {
		cgn_work.overflow = 1;
		return true;
	}
	return cgn_exclude_all(slot, accept + 1 + matching, excluding) && cgn_govern_inherited(slot, CGN_TIER_ADMIN) &&
	       cgn_govern_matching(slot, CGN_TIER_ADMIN, accept + 1, matching) &&
	       cgn_govern_matching(slot, CGN_TIER_NORMAL, accept + 1, matching) &&
	       cgn_govern_inherited(slot, CGN_TIER_NORMAL) &&
	       cgn_govern_matching(slot, CGN_TIER_BASELINE, accept + 1, matching) &&
	       cgn_govern_inherited(slot, CGN_TIER_BASELINE);
}

/* One policy into the new label. On its own, so that its bounds do not multiply the states of the callers' loops. */
__weak __noinline int cgn_place(__u32 slot, __u32 index, __u32 policy)
{
	if (index < CGN_CHAIN_MAX)
		cgn_work.child.slot[slot & (CGN_SLOTS - 1)].policy[index] = policy;
	return 0;
}

/* The work lists as a label: the chain, the excluded ones behind it; nothing of either if they do not fit. */
__weak __noinline int cgn_write_label(__u32 slot, __u32 generation, __u32 state)
{
	struct cgn_label *label = &cgn_work.child.slot[slot & (CGN_SLOTS - 1)];

	label->generation = generation;
	label->state = state;
	if (cgn_work.overflow) {
		label->flags = CGN_LABEL_OVERFLOW;
		return 0;
	}
	label->governing = cgn_work.governing_count;
	label->excluded = cgn_work.excluded_count;
	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < cgn_work.governing_count; i++)
		cgn_place(slot, i, cgn_work.governing[i]);
	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < cgn_work.excluded_count; i++)
		cgn_place(slot, cgn_work.governing_count + i, cgn_work.excluded[i]);
	return 0;
}

/* Derives the label of one slot into cgn_work.child. False: a corrupt image. */
__weak __noinline int cgn_derive(__u32 slot, __u32 generation)
{
	const struct cgn_label *parent = &cgn_work.parent.slot[slot & (CGN_SLOTS - 1)];
	__u64 state, head, edges, cell;
	void *image = cgn_image(slot);

	if (!image || !cgn_cell(image, CGN_IMAGE_DEFAULT, &cell) || CGN_HI(cell) != generation)
		return false;
	state = cgn_run(slot, parent->state);
	if (state == CGN_NO_STATE || !cgn_state(image, state, &head, &edges) || !cgn_build_chain(slot, CGN_LO(head)))
		return false;
	if (parent->flags & CGN_LABEL_OVERFLOW)
		cgn_work.overflow = 1;
	cgn_write_label(slot, generation, state);
	if (cgn_work.overflow)
		cgn_stat_add(CGN_STAT_OVERFLOW);
	return true;
}

#endif
