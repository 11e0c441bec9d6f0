/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The verdict on one socket call: that of the task's cgroup, with what becomes of a call that it rewrites, and that of
 * the socket's. Must not know of hook contexts, kernel structures, counters or events.
 */
#ifndef CGNETD_DECIDE_BPF_H
#define CGNETD_DECIDE_BPF_H

#include "target.bpf.h"
#include "verdict.bpf.h"

/* How a cgroup stands; its label becomes the call's if it is governed. */
__weak __noinline int cgn_take_label(struct cgn_call *call, __u64 cgroup_id)
{
	return call ? cgn_stand(cgroup_id, call->slot, call->generation, &call->label) : CGN_STANDING_ABSENT;
}

/*
 * The call to its target, judged by what comes before the rule that rewrites it: the policies before, then the rules
 * before it in its own. What denies takes the rule's place; of the verdict only what enforces.
 */
static __always_inline void cgn_judge_target(struct cgn_call *call, const struct cgn_name *name, bool of_shadow)
{
	__u64 rule = of_shadow ? call->shadow : call->rule, first = 0, enforcing = 0, said;
	__u32 at = of_shadow ? call->shadow_at : call->rule_at;

	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < call->label.governing && i <= at; i++) {
		said = cgn_ask_policy(&call->question, call->label.policy[i], name);
		if (!said || (i == at && CGN_CELL_ID(said) >= CGN_CELL_ID(rule)))
			continue;
		first = first ?: said & ~CGN_CELL_AUDIT;
		if (!(said & CGN_CELL_AUDIT)) {
			enforcing = said;
			break;
		}
	}
	if ((of_shadow || CGN_CELL_ID(call->shadow) == CGN_CELL_ID(rule)) && cgn_denies(first))
		call->shadow = first;
	if (!of_shadow && cgn_denies(enforcing))
		call->rule = enforcing;
}

/* The same of a name; `name` is the target's already. */
__weak __noinline int cgn_check_name(struct cgn_call *call, const struct cgn_name *name, int of_shadow)
{
	if (!call)
		return 0;
	cgn_judge_target(call, name, of_shadow);
	return 0;
}

/* On no stack: there is little left of it. */
static __always_inline void cgn_swap_target(struct cgn_call *call)
{
	__u64 high = call->address[0], low = call->address[1];
	__u16 port = call->port;

	call->address[0] = call->target[0];
	call->address[1] = call->target[1];
	call->port = call->target_port;
	call->target[0] = high;
	call->target[1] = low;
	call->target_port = port;
}

/* The same of an address and port. */
__weak __noinline int cgn_check_target(struct cgn_call *call, int of_shadow)
{
	if (!call)
		return 0;
	cgn_swap_target(call);
	cgn_judge_target(call, NULL, of_shadow);
	cgn_swap_target(call);
	return 0;
}

/* A bind that keeps [::] takes the new port on 0.0.0.0 too, and is judged as both. */
static __always_inline void cgn_check_targets(struct cgn_call *call, bool of_shadow)
{
	cgn_check_target(call, of_shadow);
	if (!cgn_is_direction(&call->question, CGN_DIR_BIND) || !call->both_families || call->target[0] ||
	    call->target[1] || !cgn_rewrites(of_shadow ? call->shadow : call->rule))
		return;
	call->family = CGN_FAMILY_V4 + CGN_FAMILY_V6 - call->family;
	cgn_check_target(call, of_shadow);
	call->family = CGN_FAMILY_V4 + CGN_FAMILY_V6 - call->family;
}

/* A rule that has no target to go to denies. The shadow verdict is the same rule's, or another one's. */
static __always_inline void cgn_fail_target(struct cgn_call *call, bool of_shadow, int error)
{
	__u64 rule = of_shadow ? call->shadow : call->rule;
	__u64 denial = error < 0 ? CGN_CELL_CORRUPT : cgn_as_deny(rule, error);

	if (of_shadow || CGN_CELL_ID(call->shadow) == CGN_CELL_ID(rule))
		call->shadow = denial;
	if (of_shadow)
		return;
	call->rule = denial;
	if (error > 0)
		call->reason = CGN_REASON_NO_BACKEND;
}

/*
 * Finds the target of the rule that decided, or would, and judges it. `name`, that of a UNIX socket, becomes the
 * target's.
 */
static __always_inline void cgn_follow_rule(struct cgn_call *call, struct cgn_name *name, bool of_shadow)
{
	__u64 rule = of_shadow ? call->shadow : call->rule;
	int error = 0;

	if (cgn_is_direction(&call->question, CGN_DIR_UNIX)) {
		error = cgn_aim_at_name(call, rule, name);
		if (!error)
			cgn_check_name(call, name, of_shadow);
	} else {
		if (!call->has_target)
			error = cgn_aim(call, rule);
		if (cgn_is_direction(&call->question, CGN_DIR_EGRESS) && error == CGN_AIM_SERVICE)
			error = cgn_aim_at_service(call);
		if (!error)
			cgn_check_targets(call, of_shadow);
	}
	if (error)
		cgn_fail_target(call, of_shadow, error);
}

/* The verdict of the task's identity. The target that is told is the enforced verdict's. */
static __always_inline void cgn_judge_task(struct cgn_call *call, struct cgn_name *name)
{
	cgn_judge(call, name);
	if (cgn_rewrites(call->shadow) && CGN_CELL_ID(call->shadow) != CGN_CELL_ID(call->rule))
		cgn_follow_rule(call, name, true);
	if (cgn_rewrites(call->rule))
		cgn_follow_rule(call, name, false);
}

/* Of the verdicts on a bind to [::] as such and as one to 0.0.0.0: the first that denies, or gives another address, or
 * rewrites. */
static __always_inline bool cgn_prefers_v4(const struct cgn_call *call, __u64 v6, __u64 v4)
{
	if (cgn_denies(v6) || cgn_denies(v4))
		return !cgn_denies(v6);
	return cgn_rewrites(v4) && !(cgn_rewrites(v6) && cgn_effects(call, v6) & CGN_EFFECT_TO6);
}

/*
 * A bind to [::] that takes the port on 0.0.0.0 too. An address that is kept is [::] still; an IPv4 one becomes an
 * IPv4-mapped one.
 */
static __always_inline void cgn_judge_task_twice(struct cgn_call *call)
{
	__u64 rule, shadow;

	cgn_judge_task(call, NULL);
	rule = call->rule;
	shadow = call->shadow;
	call->family = CGN_FAMILY_V4;
	cgn_judge_task(call, NULL);
	call->family = CGN_FAMILY_V6;
	if (!cgn_prefers_v4(call, shadow, call->shadow))
		call->shadow = shadow;
	call->target_family = CGN_FAMILY_V6;
	if (cgn_prefers_v4(call, rule, call->rule)) {
		if (cgn_effects(call, call->rule) & CGN_EFFECT_TO4)
			call->target[1] |= CGN_MAPPED_PREFIX;
		return;
	}
	call->rule = rule;
	if (cgn_rewrites(rule) && cgn_aim(call, rule))
		call->rule = CGN_CELL_CORRUPT;
}

/* The verdict of the socket's identity, which rewrites nothing: 0 in both if it has none. */
static __always_inline void cgn_judge_socket(struct cgn_call *call, const struct cgn_name *name, bool twice)
{
	__u64 rule, shadow;

	call->rule = call->shadow = 0;
	if (cgn_take_label(call, call->judge_id) != CGN_STANDING_GOVERNED)
		return;
	cgn_judge(call, name);
	call->rule = cgn_as_allow(call->rule);
	call->shadow = cgn_as_allow(call->shadow);
	if (!twice || !call->both_families)
		return;
	rule = call->rule;
	shadow = call->shadow;
	call->family = CGN_FAMILY_V4;
	cgn_judge(call, NULL);
	call->family = CGN_FAMILY_V6;
	call->rule = cgn_stricter(rule, cgn_as_allow(call->rule));
	call->shadow = cgn_stricter(shadow, cgn_as_allow(call->shadow));
}

/*
 * Both identities: of task and socket the first that denies, otherwise the first that judges. The socket's is asked
 * first, for the task's can change what is asked about. `twice`: a bind, which can be of both families.
 */
static __always_inline void cgn_decide_as(struct cgn_call *call, struct cgn_name *name, bool twice)
{
	__u64 rule = 0, shadow = 0;

	if (call->judge_id) {
		cgn_judge_socket(call, name, twice);
		rule = call->rule;
		shadow = call->shadow;
		if (call->standing == CGN_STANDING_GOVERNED &&
		    cgn_take_label(call, call->task_id) != CGN_STANDING_GOVERNED)
			call->standing = CGN_STANDING_UNLABELLED;
	}
	call->rule = call->shadow = 0;
	if (call->standing == CGN_STANDING_UNLABELLED)
		call->rule = call->shadow = CGN_CELL_DENY(CGN_RULE_UNLABELLED);
	else if (call->standing == CGN_STANDING_GOVERNED && twice && call->both_families)
		cgn_judge_task_twice(call);
	else if (call->standing == CGN_STANDING_GOVERNED)
		cgn_judge_task(call, name);
	call->by_socket = rule && (!call->rule || (!cgn_denies(call->rule) && cgn_denies(rule)));
	if (call->by_socket)
		call->reason = CGN_REASON_NONE;
	call->rule = cgn_stricter(call->rule, rule);
	call->shadow = cgn_stricter(call->shadow, shadow);
}

/* `name` is that of a UNIX socket, else NULL; it is the target's afterwards if a rule rewrites, or would. */
static __always_inline int cgn_decide(struct cgn_call *call, struct cgn_name *name)
{
	cgn_decide_as(call, name, false);
	return 0;
}

static __always_inline int cgn_decide_bind(struct cgn_call *call)
{
	cgn_decide_as(call, NULL, true);
	return 0;
}

#endif
