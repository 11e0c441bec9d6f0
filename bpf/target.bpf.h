/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a call goes that a rule rewrites: an address and port, a backend, a name. Must not know of chains or verdicts.
 */
#ifndef CGNETD_TARGET_BPF_H
#define CGNETD_TARGET_BPF_H

#include "service.bpf.h"

/* Where a rule's effect is, its flags, CGN_EFFECT_*, and the id of its service. False if it cannot be read. */
static __always_inline bool cgn_effect_of_rule(const struct cgn_call *call, void *image, __u64 rule, __u32 *effect,
					       __u32 *flags, __u32 *service)
{
	return image && cgn_effect(call, image, rule, effect) && cgn_effect_flags(image, *effect, flags, service);
}

/* CGN_EFFECT_* of a rule, 0 if it has none. */
__weak __noinline __u32 cgn_effects(const struct cgn_call *call, __u64 rule)
{
	__u32 effect, flags, service;

	if (!call || !(CGN_CELL_FLAGS(rule) & CGN_RULE_EFFECT) ||
	    !cgn_effect_of_rule(call, cgn_image(call->slot), rule, &effect, &flags, &service))
		return 0;
	return flags;
}

/*
 * Where an egress or bind rule sends the call, into call->target. What the rule does not give is kept. Returns 0,
 * CGN_AIM_CORRUPT, or CGN_AIM_SERVICE: it is left to cgn_aim_at_service(), and call->service is the service's id.
 */
__weak __noinline int cgn_aim(struct cgn_call *call, __u64 rule)
{
	__u32 effect, service, flags, wanted, port;
	__u64 address[2];
	void *image;

	if (!call)
		return CGN_AIM_CORRUPT;
	image = cgn_image(call->slot);
	if (!cgn_effect_of_rule(call, image, rule, &effect, &flags, &service))
		return CGN_AIM_CORRUPT;
	call->target_family = call->family;
	call->service = flags & CGN_EFFECT_SERVICE ? service : 0;
	if (flags & CGN_EFFECT_SERVICE)
		return CGN_AIM_SERVICE;
	if (!cgn_effect_address(image, effect + CGN_EFFECT_TO_V4, call->family, address, &port))
		return CGN_AIM_CORRUPT;
	wanted = call->family == CGN_FAMILY_V4 ? CGN_EFFECT_TO4 : CGN_EFFECT_TO6;
	if (call->direction == CGN_DIR_EGRESS && !(flags & wanted))
		return CGN_AIM_CORRUPT; /* a redirect to nowhere */
	call->target[0] = flags & wanted ? address[0] : call->address[0];
	call->target[1] = flags & wanted ? address[1] : call->address[1];
	call->target_port = port ?: call->port;
	return 0;
}

#define CGN_SOURCE_NONE (-1)
#define CGN_SOURCE_CORRUPT (-2)

/*
 * The source address that a rule gives the call, into call->local. Returns the live cell that says whether the host has
 * it, CGN_SOURCE_NONE or CGN_SOURCE_CORRUPT.
 */
__weak __noinline int cgn_source(struct cgn_call *call)
{
	__u32 effect, service, flags, wanted, live;
	__u64 address[2];
	void *image;

	if (!call)
		return CGN_SOURCE_CORRUPT;
	image = cgn_image(call->slot);
	if (!cgn_effect_of_rule(call, image, call->rule, &effect, &flags, &service))
		return CGN_SOURCE_CORRUPT;
	wanted = call->family == CGN_FAMILY_V4 ? CGN_EFFECT_SOURCE4 : CGN_EFFECT_SOURCE6;
	if (!(flags & wanted))
		return CGN_SOURCE_NONE;
	if (!cgn_effect_address(image, effect + CGN_EFFECT_SOURCE_V4, call->family, address, &live))
		return CGN_SOURCE_CORRUPT;
	call->local[0] = address[0];
	call->local[1] = address[1];
	return live & 0x7fffffff;
}

/* The name that a rule on UNIX sockets sends the call to, into `name`. Returns 0 or CGN_AIM_CORRUPT. */
__weak __noinline int cgn_aim_at_name(const struct cgn_call *call, __u64 rule, struct cgn_name *name)
{
	__u32 effect, flags, service;
	void *image;

	if (!call || !name)
		return CGN_AIM_CORRUPT;
	image = cgn_image(call->slot);
	if (!cgn_effect_of_rule(call, image, rule, &effect, &flags, &service) || !(flags & CGN_EFFECT_UNIX) ||
	    !cgn_effect_name(image, effect, name))
		return CGN_AIM_CORRUPT;
	return 0;
}

#endif
