// SPDX-License-Identifier: GPL-2.0-only
/*
 * sendto(), sendmsg(), sendmmsg() on UDP sockets that name a destination or send control messages. Must not know what a
 * policy says.
 *
 * A connected socket that sends a control message comes here without an address (port 0, which no sender can name): its
 * peer is the destination. sendmsg4 also sees IPv6 sockets (mapped addresses) and AF_UNSPEC, which is real.
 */
#include "hook.bpf.h"

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct cgn_call call;

	if (!cgn_begin(&call, ctx->sk))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_SENDMSG, ctx->protocol);
	if (ctx->user_port) {
		cgn_set_address4(&call, ctx->user_ip4);
		cgn_set_loopback4(&call, ctx->msg_src_ip4);
		call.port = bpf_ntohs(ctx->user_port);
	} else {
		cgn_set_address4(&call, ctx->sk->dst_ip4);
		call.port = bpf_ntohs(ctx->sk->dst_port);
	}
	cgn_set_local(&call, ctx->sk);
	return cgn_enforce(&call, ctx->sk);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct cgn_call call;

	if (!cgn_begin(&call, ctx->sk))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_SENDMSG, ctx->protocol);
	if (ctx->user_port) {
		cgn_set_address6(&call, CGN_ADDRESS6(ctx->user_ip6));
		cgn_set_loopback6(&call, false);
		call.port = bpf_ntohs(ctx->user_port);
	} else {
		cgn_set_address6(&call, CGN_ADDRESS6(ctx->sk->dst_ip6));
		call.port = bpf_ntohs(ctx->sk->dst_port);
	}
	cgn_set_local(&call, ctx->sk);
	return cgn_enforce(&call, ctx->sk);
}

char _license[] SEC("license") = "GPL";
