// SPDX-License-Identifier: GPL-2.0-only
/*
 * connect(), TCP fast open, and MPTCP's subflows. Must not know what a policy says.
 *
 * A family that the socket does not take is refused by the kernel after these programs: it is not judged, and makes no
 * event.
 */
#include "hook.bpf.h"

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct cgn_call call;

	if (ctx->user_family != AF_INET || !cgn_begin(&call, ctx->sk))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_CONNECT, ctx->protocol);
	cgn_set_address4(&call, ctx->user_ip4);
	if (!call.address[1])
		cgn_set_loopback4(&call, cgn_socket_source4(ctx->sk));
	call.port = bpf_ntohs(ctx->user_port);
	cgn_set_local(&call, ctx->sk);
	return cgn_enforce(&call, ctx->sk);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct cgn_call call;

	if (ctx->user_family != AF_INET6 || !cgn_begin(&call, ctx->sk))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_CONNECT, ctx->protocol);
	cgn_set_address6(&call, CGN_ADDRESS6(ctx->user_ip6));
	cgn_set_loopback6(&call, cgn_is_bound_to_mapped(ctx->sk));
	if (call.family == 4 && !call.address[1])
		cgn_set_loopback4(&call, cgn_socket_source4(ctx->sk));
	call.port = bpf_ntohs(ctx->user_port);
	cgn_set_local(&call, ctx->sk);
	return cgn_enforce(&call, ctx->sk);
}

char _license[] SEC("license") = "GPL";
