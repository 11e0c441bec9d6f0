/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The verdict on one socket call: classification, the walk along a chain, two identities. The very same functions serve
 * the hooks and the test program. Must not know of hook contexts, kernel structures, counters or events.
 *
 * A verdict is a rule cell; 0 is "does not judge". Functions that are not static are verified once, on their own, for
 * any argument, and may be called in loops at no cost to the verifier.
 */
#ifndef CGNETD_VERDICT_BPF_H
#define CGNETD_VERDICT_BPF_H

#include "call.bpf.h"
#include "image.bpf.h"

static __always_inline bool cgn_denies(__u64 rule)
{
	return CGN_CELL_ACTION(rule) == CGN_ACTION_DENY;
}

/* Of two verdicts the first that denies, otherwise the first that judges. */
static __always_inline __u64 cgn_stricter(__u64 first, __u64 second)
{
	return !first || (!cgn_denies(first) && cgn_denies(second)) ? second : first;
}

static __always_inline bool cgn_reference_of_port(void *image, __u32 blob, __u64 list, __u16 port, __u32 *reference)
{
	return cgn_bisect(image, blob + CGN_HI(list), CGN_LO(list), port, reference) && *reference != CGN_REF_CORRUPT;
}

/* The rule that matches, by the port; of a port that the kernel picked, the earlier one of `ephemeral` and the port. */
static __always_inline bool cgn_reference(const struct cgn_call *call, void *image, __u32 blob, __u64 list,
					  __u32 *reference)
{
	__u32 ephemeral;

	if (!cgn_reference_of_port(image, blob, list, call->port, reference))
		return false;
	if (call->hook != CGN_HOOK_POST_BIND)
		return true;
	if (!cgn_reference_of_port(image, blob, list, 0, &ephemeral))
		return false;
	if (*reference == CGN_REF_NONE || (ephemeral != CGN_REF_NONE && ephemeral < *reference))
		*reference = ephemeral;
	return true;
}

/* Classification: address -> row -> port list -> rule reference. */
static __always_inline bool cgn_classify(const struct cgn_call *call, void *image, __u32 header, __u32 blob,
					 __u32 *reference)
{
	__u32 direction = call->direction & (CGN_DIR_COUNT - 1), contexts, row;
	__u64 table, rows, list;

	contexts = direction == CGN_DIR_EGRESS ? CGN_EGRESS_CONTEXTS : CGN_BIND_CONTEXTS;
	if (call->family == 4) {
		if (!cgn_cell(image, header + CGN_POLICY_V4 + direction, &table) ||
		    !cgn_row4(image, blob, table, call->address[1], &row))
			return false;
	} else {
		if (!cgn_cell(image, header + CGN_POLICY_V6 + direction, &table) ||
		    !cgn_row6(image, blob, table, call->address, &row))
			return false;
	}
	if (!cgn_cell(image, header + CGN_POLICY_ROWS + direction, &rows) || row >= CGN_LO(rows) ||
	    call->context >= contexts)
		return false;
	if (!cgn_cell(image, blob + CGN_HI(rows) + row * contexts + call->context, &list))
		return false;
	return cgn_reference(call, image, blob, list, reference);
}

/* A socket whose later calls no hook sees: one reference a class. */
static __always_inline bool cgn_classify_opaque(const struct cgn_call *call, void *image, __u32 header,
						__u32 *reference)
{
	__u64 cell;

	if (call->context >= CGN_OPAQUE_COUNT || !cgn_cell(image, header + CGN_POLICY_OPAQUE + call->context, &cell))
		return false;
	*reference = CGN_LO(cell);
	return *reference != CGN_REF_CORRUPT;
}

/* The cell of a rule; fails for one that cannot be right. */
static __always_inline bool cgn_rule(const struct cgn_call *call, void *image, __u32 id, __u64 *rule)
{
	return id < call->rule_count && cgn_cell(image, call->rules + id, rule) && cgn_rule_is_right(*rule, id);
}

/*
 * What one policy says: the cell of the rule that decides (with CGN_CELL_AUDIT set if the policy does not enforce), or
 * 0 if it passes.
 */
__noinline __u64 cgn_ask_policy(const struct cgn_call *call, __u32 policy)
{
	__u32 header = CGN_IMAGE_HEADER + policy * CGN_POLICY_CELLS, wanted, reference, rule_id;
	__u64 flags, base, rule;
	void *image;

	if (!call)
		return CGN_CELL_CORRUPT;
	image = cgn_image(call->slot);
	if (!image || policy >= call->policy_count)
		return CGN_CELL_CORRUPT;
	if (!cgn_cell(image, header + CGN_POLICY_FLAGS, &flags))
		return CGN_CELL_CORRUPT;
	wanted = call->direction == CGN_DIR_EGRESS ? CGN_POLICY_EGRESS : CGN_POLICY_BIND;
	if (!(CGN_HI(flags) & wanted))
		return 0;
	if (!cgn_cell(image, header + CGN_POLICY_BASE, &base))
		return CGN_CELL_CORRUPT;
	if (call->hook == CGN_HOOK_SOCKET ? !cgn_classify_opaque(call, image, header, &reference)
					  : !cgn_classify(call, image, header, CGN_HI(base), &reference))
		return CGN_CELL_CORRUPT;
	if (reference == CGN_REF_NONE)
		return 0;
	rule_id = CGN_LO(base) + (reference - CGN_REF_RULE);
	if (rule_id < CGN_LO(base) ||
	    !cgn_rule(call, image, rule_id, &rule)) /* a sum that wrapped names another rule */
		return CGN_CELL_CORRUPT;
	if (CGN_CELL_ACTION(rule) == CGN_ACTION_PASS)
		return 0;
	return (rule & ~CGN_CELL_AUDIT) | (CGN_HI(flags) & CGN_POLICY_AUDIT ? CGN_CELL_AUDIT : 0);
}

/* The daemon's default_action, for what no policy decided. */
static __always_inline __u64 cgn_default(const struct cgn_call *call)
{
	void *image = cgn_image(call->slot);
	__u64 rule;

	if (!image || !cgn_rule(call, image, CGN_RULE_DEFAULT, &rule) || CGN_CELL_ACTION(rule) == CGN_ACTION_PASS)
		return CGN_CELL_CORRUPT;
	return rule;
}

/* The first decision along the chain of call->label: the first of any policy is the shadow, of an enforcing one the
 * verdict. */
static __always_inline void cgn_walk(struct cgn_call *call)
{
	__u64 shadow = 0, rule = 0, said;

	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < call->label.governing; i++) {
		said = cgn_ask_policy(call, call->label.policy[i]);
		if (!said)
			continue;
		if (!shadow)
			shadow = said & ~CGN_CELL_AUDIT;
		if (!(said & CGN_CELL_AUDIT)) {
			rule = said;
			break;
		}
	}
	if (!rule)
		rule = cgn_default(call);
	call->rule = rule;
	call->shadow = shadow ?: rule;
}

/* Reads what every verdict needs of the image, which must be of the generation that the labels are of. */
static __always_inline bool cgn_open_image(struct cgn_call *call)
{
	void *image = cgn_image(call->slot);
	__u64 fallback, counts, rules;

	if (!image || !cgn_cell(image, CGN_IMAGE_DEFAULT, &fallback) || CGN_HI(fallback) != call->generation)
		return false;
	if (!cgn_cell(image, CGN_IMAGE_COUNTS, &counts) || !cgn_cell(image, CGN_IMAGE_RULES, &rules))
		return false;
	call->policy_count = CGN_HI(counts);
	call->rule_count = CGN_LO(counts);
	call->rules = CGN_LO(rules);
	return true;
}

/* The verdict of one identity, by call->label, into call->rule and call->shadow. */
__noinline int cgn_judge(struct cgn_call *call)
{
	__u64 rule, shadow;

	if (!call)
		return 0;
	if (call->label.flags & CGN_LABEL_OVERFLOW || call->label.governing > CGN_CHAIN_MAX || !cgn_open_image(call)) {
		call->rule =
			call->label.flags & CGN_LABEL_OVERFLOW ? CGN_CELL_DENY(CGN_RULE_OVERFLOW) : CGN_CELL_CORRUPT;
		call->shadow = call->rule;
		return 0;
	}
	cgn_walk(call);
	if (!call->both_families)
		return 0;
	rule = call->rule;
	shadow = call->shadow;
	call->family = 4;
	cgn_walk(call);
	call->family = 6;
	call->rule = cgn_stricter(rule, call->rule);
	call->shadow = cgn_stricter(shadow, call->shadow);
	return 0;
}

/* The task's identity first, then the socket's: the first that denies, otherwise the first that judges. */
__noinline int cgn_decide(struct cgn_call *call)
{
	__u64 rule, shadow;

	if (!call)
		return 0;
	call->rule = call->shadow = 0;
	if (call->standing == CGN_STANDING_UNLABELLED)
		call->rule = call->shadow = CGN_CELL_DENY(CGN_RULE_UNLABELLED);
	else if (call->standing == CGN_STANDING_GOVERNED)
		cgn_judge(call);
	if (!call->judge_id)
		return 0;
	if (cgn_stand(call->judge_id, call->slot, call->generation, &call->label) != CGN_STANDING_GOVERNED)
		return 0;
	rule = call->rule;
	shadow = call->shadow;
	cgn_judge(call);
	call->by_socket = !rule || (!cgn_denies(rule) && cgn_denies(call->rule));
	call->rule = cgn_stricter(rule, call->rule);
	call->shadow = cgn_stricter(shadow, call->shadow);
	return 0;
}

#endif
