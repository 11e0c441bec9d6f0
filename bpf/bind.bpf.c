// SPDX-License-Identifier: GPL-2.0-only
/*
 * bind(), and the port that the kernel picks for a bind() to port 0. Must not know what a policy says.
 *
 * bind4/6 judge what was asked for. A bind to port 0 that they let pass marks the socket; post_bind judges only marked
 * sockets, with the real port. A mark outlives a bind that fails later on: the next bind clears or renews it.
 */
#include "hook.bpf.h"

static __always_inline void cgn_set_bind_address(struct cgn_call *call, void *sk)
{
	if (call->family == 6 && !call->address[0] && !call->address[1])
		call->both_families = !cgn_socket_is_v6_only(sk);
	call->local[0] = call->address[0];
	call->local[1] = call->address[1];
	call->local_port = call->port;
}

static __always_inline int cgn_enforce_bind(struct cgn_call *call, struct bpf_sock *sk)
{
	bool is_event, denied, picks_port;
	struct cgn_stamp *stamp;

	if (!cgn_identify(call, sk)) {
		cgn_remember_quiet(call);
		return CGN_PROCEED;
	}
	denied = cgn_is_denied(call, &is_event);
	picks_port = !call->port && !denied;
	stamp = bpf_sk_storage_get(&cgn_stamps, sk, NULL, picks_port ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (stamp)
		stamp->port_is_picked = picks_port;
	else if (picks_port)
		denied = true; /* no memory: the port could not be judged */
	return denied ? CGN_DENY : CGN_PROCEED;
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	struct cgn_call call;

	if ((ctx->user_family != AF_INET && ctx->user_family != AF_UNSPEC) || !cgn_begin(&call, ctx->sk))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_BIND, ctx->protocol);
	cgn_set_address4(&call, ctx->user_ip4);
	call.port = bpf_ntohs(ctx->user_port);
	cgn_set_bind_address(&call, ctx->sk);
	return cgn_enforce_bind(&call, ctx->sk);
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	struct cgn_call call;

	if (ctx->user_family != AF_INET6 || !cgn_begin(&call, ctx->sk))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_BIND, ctx->protocol);
	cgn_set_address6(&call, CGN_ADDRESS6(ctx->user_ip6));
	call.port = bpf_ntohs(ctx->user_port);
	cgn_set_bind_address(&call, ctx->sk);
	return cgn_enforce_bind(&call, ctx->sk);
}

/* Whether the kernel picked the port of this bind; clears the mark. */
static __always_inline bool cgn_takes_mark(struct bpf_sock *ctx)
{
	struct cgn_stamp *stamp = bpf_sk_storage_get(&cgn_stamps, ctx, NULL, 0);

	if (!stamp || !stamp->port_is_picked)
		return false;
	stamp->port_is_picked = 0;
	return true;
}

SEC("cgroup/post_bind4")
int post_bind4(struct bpf_sock *ctx)
{
	struct cgn_call call;

	if (!cgn_takes_mark(ctx) || !cgn_begin(&call, ctx))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_POST_BIND, ctx->protocol);
	cgn_set_address4(&call, ctx->src_ip4);
	call.port = ctx->src_port;
	cgn_set_bind_address(&call, ctx);
	return cgn_refuses(&call, ctx) ? CGN_DENY : CGN_PROCEED;
}

SEC("cgroup/post_bind6")
int post_bind6(struct bpf_sock *ctx)
{
	struct cgn_call call;

	if (!cgn_takes_mark(ctx) || !cgn_begin(&call, ctx))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_POST_BIND, ctx->protocol);
	cgn_set_address6(&call, CGN_ADDRESS6(ctx->src_ip6));
	call.port = ctx->src_port;
	cgn_set_bind_address(&call, ctx);
	return cgn_refuses(&call, ctx) ? CGN_DENY : CGN_PROCEED;
}

char _license[] SEC("license") = "GPL";
