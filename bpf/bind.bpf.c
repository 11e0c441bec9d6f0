// SPDX-License-Identifier: GPL-2.0-only
/*
 * bind(), and the port that the kernel picks for a bind() to port 0. Must not know what a policy says.
 *
 * bind4/6 judge what was asked for, and rewrite it. A bind to port 0 that they let pass leaves a mark; post_bind judges
 * only marked sockets, with the real port and the address that was asked for. A mark outlives a bind that fails later
 * on: the next bind clears or renews it.
 */
#define CGN_DIRECTIONS (1 << CGN_DIR_BIND)
#include "hook.bpf.h"
#include "picks.bpf.h"
#include "view.bpf.h"

#define CGN_PRIVILEGED 2 /* beside CGN_PROCEED: no CAP_NET_BIND_SERVICE is needed */
#define CGN_ENOMEM 12

static __always_inline void cgn_set_bind_address(struct cgn_call *call, void *sk)
{
	if (call->family == CGN_FAMILY_V6 && !call->address[0] && !call->address[1])
		call->both_families = !cgn_socket_is_v6_only(sk);
	call->local[0] = call->address[0];
	call->local[1] = call->address[1];
	call->local_port = call->port;
}

/* Where a bind that is let pass goes to; the address as the socket has it. */
static __always_inline void cgn_bound_endpoint(struct cgn_endpoint *actual, const struct cgn_endpoint *asked,
					       const struct cgn_call *call)
{
	*actual = *asked;
	if (!cgn_rewrites(call->rule))
		return;
	actual->address[0] = call->target[0];
	actual->address[1] = call->target[1];
	actual->port = call->target_port;
	if (asked->family != call->target_family)
		actual->address[1] |= CGN_MAPPED_PREFIX;
}

/* What the hook returns; `actual` is where the bind goes on to. */
static __always_inline int cgn_enforce_bind(struct cgn_call *call, struct bpf_sock_addr *ctx, bool views,
					    const struct cgn_endpoint *asked, struct cgn_endpoint *actual)
{
	bool remembered;

	*actual = *asked;
	if (cgn_identify(call, ctx->sk))
		cgn_decide_bind(call);
	if (!cgn_denies(call->rule)) {
		cgn_bound_endpoint(actual, asked, call);
		remembered = !(views || cgn_rewrites(call->rule)) ||
			     cgn_remember_bind(ctx->sk, asked, actual, cgn_rewrites(call->rule));
		if (call->rule && (!remembered || !cgn_mark(ctx, !actual->port)))
			cgn_fail(call, CGN_ENOMEM, CGN_REASON_NO_MEMORY);
	}
	if (cgn_conclude(call, NULL) == CGN_DENY)
		return CGN_DENY;
	if (cgn_has_effect(call) && cgn_effects(call, call->rule) & CGN_EFFECT_PRIVILEGED)
		return CGN_PROCEED | CGN_PRIVILEGED;
	cgn_remember_quiet(call);
	return CGN_PROCEED;
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	struct cgn_endpoint asked, actual;
	struct cgn_call call;
	bool views, begun;
	int verdict;

	if (ctx->user_family != AF_INET && ctx->user_family != AF_UNSPEC)
		return CGN_PROCEED;
	begun = cgn_begin_seeing(&call, ctx->sk, &views);
	if (!begun && !views)
		return CGN_PROCEED;
	cgn_endpoint4(&asked, ctx->user_ip4, ctx->user_port);
	if (!begun) {
		cgn_remember_bind(ctx->sk, &asked, &asked, false);
		return CGN_PROCEED;
	}
	cgn_set_hook(&call, CGN_HOOK_BIND, ctx->protocol);
	cgn_set_address4(&call, ctx->user_ip4);
	call.port = asked.port;
	cgn_set_bind_address(&call, ctx->sk);
	verdict = cgn_enforce_bind(&call, ctx, views, &asked, &actual);
	if (verdict != CGN_DENY && cgn_rewrites(call.rule))
		cgn_write4(ctx, actual.address, actual.port);
	return verdict;
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	struct cgn_endpoint asked, actual;
	struct cgn_call call;
	bool views, begun;
	int verdict;

	if (ctx->user_family != AF_INET6)
		return CGN_PROCEED;
	begun = cgn_begin_seeing(&call, ctx->sk, &views);
	if (!begun && !views)
		return CGN_PROCEED;
	cgn_endpoint6_as_is(&asked, CGN_ADDRESS6(ctx->user_ip6), ctx->user_port);
	if (!begun) {
		cgn_remember_bind(ctx->sk, &asked, &asked, false);
		return CGN_PROCEED;
	}
	cgn_set_hook(&call, CGN_HOOK_BIND, ctx->protocol);
	cgn_set_address6(&call, CGN_ADDRESS6(ctx->user_ip6));
	call.port = asked.port;
	cgn_set_bind_address(&call, ctx->sk);
	verdict = cgn_enforce_bind(&call, ctx, views, &asked, &actual);
	if (verdict != CGN_DENY && cgn_rewrites(call.rule))
		cgn_write6(ctx, CGN_FAMILY_V6, actual.address, actual.port);
	return verdict;
}

/* The address that was asked for, if the bind was rewritten from it; else the one that the socket has. */
static __always_inline void cgn_set_asked_address(struct cgn_call *call, struct bpf_sock *ctx,
						  const struct cgn_endpoint *bound)
{
	const struct cgn_view *view = cgn_bind_view_of(ctx, false);
	__be32 words[4];

	if (!view || view->family != bound->family || view->actual[1] != bound->address[1] ||
	    view->actual[0] != bound->address[0]) {
		cgn_to_words(words, bound->family, bound->address);
		cgn_set_address6(call, words);
	} else {
		cgn_to_words(words, view->family, view->asked);
		cgn_set_address6(call, words);
	}
	call->port = bound->port;
	cgn_set_bind_address(call, ctx);
}

SEC("cgroup/post_bind4")
int post_bind4(struct bpf_sock *ctx)
{
	struct cgn_endpoint bound;
	struct cgn_call call;

	if (!cgn_takes_mark(ctx) || !cgn_begin(&call, ctx))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_POST_BIND, ctx->protocol);
	cgn_endpoint4(&bound, ctx->src_ip4, bpf_htons(ctx->src_port));
	cgn_set_asked_address(&call, ctx, &bound);
	return cgn_refuses(&call, ctx) ? CGN_DENY : CGN_PROCEED;
}

SEC("cgroup/post_bind6")
int post_bind6(struct bpf_sock *ctx)
{
	struct cgn_endpoint bound;
	struct cgn_call call;

	if (!cgn_takes_mark(ctx) || !cgn_begin(&call, ctx))
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_POST_BIND, ctx->protocol);
	cgn_endpoint6_as_is(&bound, CGN_ADDRESS6(ctx->src_ip6), bpf_htons(ctx->src_port));
	cgn_set_asked_address(&call, ctx, &bound);
	return cgn_refuses(&call, ctx) ? CGN_DENY : CGN_PROCEED;
}

char _license[] SEC("license") = "GPL";
