// SPDX-License-Identifier: GPL-2.0-only
/*
 * socket() of kinds whose later calls no hook sees: raw, ping, UDP-Lite, SCTP, and whatever else there is beside TCP,
 * UDP and MPTCP. Must not know what a policy says.
 */
#include "hook.bpf.h"

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3

/* Sockets that connect and sendmsg hooks see: an allow-list, for a protocol nobody thought of must not slip through. */
static __always_inline bool cgn_is_seen_later(__u32 type, __u32 protocol)
{
	if (type == SOCK_STREAM)
		return protocol == CGN_IPPROTO_TCP || protocol == CGN_IPPROTO_MPTCP;
	return type == SOCK_DGRAM && protocol == CGN_IPPROTO_UDP;
}

SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *ctx)
{
	struct cgn_call call;

	if (cgn_is_seen_later(ctx->type, ctx->protocol) || !cgn_begin(&call, NULL))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_SOCKET, ctx->protocol);
	if (ctx->type == SOCK_RAW)
		call.context = CGN_OPAQUE_RAW;
	call.family = ctx->family == AF_INET ? 4 : 6;
	return cgn_refuses(&call, NULL) ? CGN_DENY : CGN_PROCEED;
}

char _license[] SEC("license") = "GPL";
