// SPDX-License-Identifier: GPL-2.0-only
/*
 * socket(): by the rules of `socket`, which can put options on it; and by the egress rules where the socket is of a
 * kind whose later calls no hook sees: raw, ping, UDP-Lite, SCTP, and whatever else there is beside TCP, UDP and MPTCP.
 * Must not know what a policy says.
 */
#define CGN_DIRECTIONS (1 << CGN_DIR_SOCKET | 1 << CGN_DIR_EGRESS)
#include "hook.bpf.h"

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3

#define CGN_ENODEV 19

/* Sockets that connect and sendmsg hooks see: an allow-list, for a protocol nobody thought of must not slip through. */
static __always_inline bool cgn_is_seen_later(__u32 type, __u32 protocol)
{
	if (type == SOCK_STREAM)
		return protocol == CGN_IPPROTO_TCP || protocol == CGN_IPPROTO_MPTCP;
	return type == SOCK_DGRAM && protocol == CGN_IPPROTO_UDP;
}

static __always_inline enum cgn_socket_type cgn_type_of(__u32 type)
{
	switch (type) {
	case SOCK_STREAM:
		return CGN_TYPE_STREAM;
	case SOCK_DGRAM:
		return CGN_TYPE_DGRAM;
	case SOCK_RAW:
		return CGN_TYPE_RAW;
	default:
		return CGN_TYPE_OTHER;
	}
}

/* Whether the live cells speak of the network namespace that the socket is made in. */
static __always_inline bool cgn_is_at_home(struct bpf_sock *ctx)
{
	struct cgn_control *control;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(&cgn_control, &zero);
	return control && bpf_get_netns_cookie(ctx) == control->netns;
}

/* Puts the options of a rule on the new socket. call->rule denies if one cannot be had. */
static __always_inline void cgn_set_options(struct bpf_sock *ctx, struct cgn_call *call)
{
	void *image = cgn_image(call->slot);
	__u32 effect, flags, service;
	__u64 options, link, device = 0;

	if (!image || !cgn_effect(call, image, call->rule, &effect) ||
	    !cgn_effect_flags(image, effect, &flags, &service) ||
	    !cgn_cell(image, effect + CGN_EFFECT_OPTIONS, &options) ||
	    !cgn_cell(image, effect + CGN_EFFECT_LINK, &link)) {
		call->rule = call->shadow = CGN_CELL_CORRUPT;
		return;
	}
	if (flags & CGN_EFFECT_DEVICE) {
		if (cgn_is_at_home(ctx))
			device = cgn_live_cell(call->slot, CGN_LO(link));
		if (!device) {
			cgn_fail(call, CGN_ENODEV, CGN_REASON_NO_DEVICE);
			return;
		}
		ctx->bound_dev_if = device;
	}
	if (flags & CGN_EFFECT_MARK)
		ctx->mark = CGN_HI(options);
	if (flags & CGN_EFFECT_PRIORITY)
		ctx->priority = CGN_LO(options);
}

/* One copy of the verdict for both judgements. */
static __noinline int cgn_decide_once(struct cgn_call *call)
{
	return cgn_decide(call, NULL);
}

/* A socket that no policy says anything of leaves nothing, not even a count. */
static __always_inline bool cgn_is_decided(const struct cgn_call *call)
{
	return CGN_CELL_ID(call->rule) != CGN_RULE_DEFAULT || CGN_CELL_ID(call->shadow) != CGN_RULE_DEFAULT;
}

/* By the rules of `socket`. */
static __always_inline int cgn_judge_creation(struct bpf_sock *ctx, struct cgn_call *call)
{
	bool is_v6 = call->family == CGN_FAMILY_V6;

	call->hook = CGN_HOOK_CREATE;
	call->direction = CGN_DIR_SOCKET;
	call->context = (is_v6 ? CGN_TYPE_COUNT : 0) + cgn_type_of(ctx->type);
	call->type = ctx->type;
	cgn_decide_once(call);
	if (!cgn_is_decided(call))
		return CGN_PROCEED;
	if (cgn_has_effect(call))
		cgn_set_options(ctx, call);
	return cgn_conclude(call, NULL);
}

/* By the egress rules, for all that it could send. */
static __always_inline int cgn_judge_opaque(struct bpf_sock *ctx, struct cgn_call *call)
{
	cgn_set_hook(call, CGN_HOOK_SOCKET, ctx->protocol);
	if (ctx->type == SOCK_RAW)
		call->context = CGN_OPAQUE_RAW;
	call->type = 0;
	call->reason = CGN_REASON_NONE;
	cgn_decide_once(call);
	return cgn_conclude(call, NULL);
}

SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *ctx)
{
	struct cgn_call call;

	if (!cgn_begin(&call, NULL))
		return CGN_PROCEED;
	if (!cgn_identify(&call, NULL)) {
		cgn_remember_quiet(&call);
		return CGN_PROCEED;
	}
	call.protocol = ctx->protocol;
	call.family = ctx->family == AF_INET ? CGN_FAMILY_V4 : CGN_FAMILY_V6;
	if (cgn_judge_creation(ctx, &call) == CGN_DENY)
		return CGN_DENY;
	if (cgn_is_seen_later(ctx->type, ctx->protocol))
		return CGN_PROCEED;
	return cgn_judge_opaque(ctx, &call);
}

char _license[] SEC("license") = "GPL";
