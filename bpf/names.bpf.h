/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which rule of one policy a name of a UNIX socket meets. Must not know of chains, verdicts or hook contexts.
 *
 * A name is what the program gave: a path without the NUL at its end, or an abstract name with the NUL at its start.
 * The kernel resolves paths later on. One that is relative, or goes by an empty, `.` or `..` component, could lead to
 * any socket: it is not looked up, but judged by what the policy says of such names.
 */
#ifndef CGNETD_NAMES_BPF_H
#define CGNETD_NAMES_BPF_H

#include "call.bpf.h"
#include "edges.bpf.h"

/* How far a path has come in its component. */
enum cgn_component {
	CGN_COMPONENT_EMPTY = 0,
	CGN_COMPONENT_DOT = 1,
	CGN_COMPONENT_DOT_DOT = 2,
	CGN_COMPONENT_NAME = 3,
};

static __always_inline enum cgn_component cgn_component_after(enum cgn_component component, char byte)
{
	if (byte != '.' || component >= CGN_COMPONENT_DOT_DOT)
		return CGN_COMPONENT_NAME;
	return component + 1;
}

/* Whether the name is a path that could lead anywhere. */
__weak __noinline int cgn_name_is_unsure(const struct cgn_name *name)
{
	enum cgn_component component = CGN_COMPONENT_EMPTY;

	if (!name || (name->length && !name->bytes[0]))
		return false;
	if (name->bytes[0] != '/')
		return true;
	for (__u32 i = 1; i < CGN_UNIX_NAME_MAX && i < name->length; i++) {
		if (name->bytes[i] != '/') {
			component = cgn_component_after(component, name->bytes[i]);
			continue;
		}
		if (component != CGN_COMPONENT_NAME)
			return true;
		component = CGN_COMPONENT_EMPTY;
	}
	return component != CGN_COMPONENT_NAME;
}

/* The state after one byte, from the state whose cells begin at `cell`. CGN_NO_STATE: corrupt. */
__weak __noinline __u64 cgn_name_step(__u32 slot, __u32 blob, __u32 cell, __u32 byte)
{
	void *image = cgn_image(slot);
	__u64 head, edges;

	if (!image || !cgn_cell(image, cell, &head) || !cgn_cell(image, cell + 1, &edges))
		return CGN_NO_STATE;
	return cgn_follow(image, blob + CGN_HI(edges), CGN_LO(edges), byte, CGN_HI(head));
}

/* The state that a whole name leads to: `count` states from cell `states` on. CGN_NO_STATE: corrupt. */
__weak __noinline __u64 cgn_name_run(const struct cgn_name *name, __u32 slot, __u32 blob, __u32 states, __u32 count)
{
	__u64 state = 0;

	if (!name)
		return CGN_NO_STATE;
	for (__u32 i = 0; i < CGN_UNIX_NAME_MAX && i < name->length; i++) {
		state = cgn_name_step(slot, blob, states + (__u32)state * CGN_NAME_STATE_CELLS, (__u8)name->bytes[i]);
		if (state >= count)
			return CGN_NO_STATE;
	}
	return count ? state : CGN_NO_STATE;
}

/* The reference of a cell that holds those of `connect | sendmsg`. */
static __always_inline bool cgn_reference_of_hook(const struct cgn_question *question, __u64 cell, __u32 *reference)
{
	*reference = question->hook == CGN_HOOK_CONNECT ? CGN_HI(cell) : CGN_LO(cell);
	return *reference != CGN_REF_CORRUPT;
}

/* Classification: name -> state -> rule reference. False: an image that cannot be right. */
static __always_inline bool cgn_classify_name(const struct cgn_question *question, const struct cgn_name *name,
					      void *image, __u32 header, __u32 blob, __u32 *reference)
{
	__u64 cell, states, state;

	if (!name)
		return false;
	if (cgn_name_is_unsure(name))
		return cgn_cell(image, header + CGN_POLICY_NAMES_UNSURE, &cell) &&
		       cgn_reference_of_hook(question, cell, reference);
	if (!cgn_cell(image, header + CGN_POLICY_NAMES, &states))
		return false;
	state = cgn_name_run(name, question->slot, blob, blob + CGN_HI(states), CGN_LO(states));
	if (state == CGN_NO_STATE)
		return false;
	return cgn_cell(image, blob + CGN_HI(states) + (__u32)state * CGN_NAME_STATE_CELLS + 2, &cell) &&
	       cgn_reference_of_hook(question, cell, reference);
}

#endif
