// SPDX-License-Identifier: GPL-2.0-only
/*
 * connect(), TCP fast open, and MPTCP's subflows. Must not know what a policy says.
 *
 * A family that the socket does not take is refused by the kernel after these programs: it is not judged, and makes no
 * event.
 */
#define CGN_DIRECTIONS (1 << CGN_DIR_EGRESS)
#include "egress.bpf.h"
#include "quick.bpf.h"
#include <linux/in.h>
#include <linux/in6.h>

/*
 * A further subflow of an MPTCP connection that was redirected: it is judged as the connection was. Its socket is new,
 * while the first one has a view of its own, whatever it connects to.
 */
static __always_inline void cgn_join_connection(struct cgn_call *call, struct bpf_sock *sk)
{
	struct cgn_endpoint actual = {.port = call->port, .family = call->family};
	void *whole = cgn_whole_socket(sk);
	struct cgn_peers *peers;

	if (!whole || cgn_peers_of(sk, false))
		return;
	peers = cgn_peers_of(whole, false);
	actual.address[0] = call->address[0];
	actual.address[1] = call->address[1];
	if (peers && cgn_view_is_of(&peers->now, &actual))
		cgn_ask_again(call, &peers->now);
}

/*
 * Binds the socket to the rule's source, without a port: the kernel picks one that suits the destination. The address
 * stays with the socket until a rule gives it another one. Without memory for the mark no rule can.
 */
static __noinline bool cgn_bind_source(struct bpf_sock_addr *ctx, const struct cgn_call *call)
{
	struct sockaddr_in6 from6 = {.sin6_family = AF_INET6};
	struct sockaddr_in from4 = {.sin_family = AF_INET};
	struct cgn_stamp *stamp;
	long failed;

	if (ctx->family == AF_INET) {
		from4.sin_addr.s_addr = bpf_htonl(call->local[1]);
		failed = bpf_bind(ctx, (struct sockaddr *)&from4, sizeof(from4));
	} else {
		cgn_to_words(from6.sin6_addr.s6_addr32, call->family, call->local);
		failed = bpf_bind(ctx, (struct sockaddr *)&from6, sizeof(from6));
	}
	if (failed)
		return false;
	stamp = bpf_sk_storage_get(&cgn_stamps, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (stamp)
		stamp->source_is_ours = true;
	return true;
}

/* Does what the rule says beyond letting pass, but for writing the new destination. call->rule denies if it cannot. */
static __always_inline void cgn_apply(struct bpf_sock_addr *ctx, struct cgn_call *call)
{
	int live;

	switch (cgn_needs_source(call, ctx->sk, &live)) {
	case CGN_SOURCE_WANTED:
		if (cgn_bind_source(ctx, call))
			break;
		cgn_fail(call, CGN_EADDRNOTAVAIL, CGN_REASON_NO_SOURCE);
		return;
	case CGN_SOURCE_REFUSED:
		return;
	default:
		break;
	}
	if (cgn_rewrites(call->rule) && !cgn_remember_peer(ctx->sk, call, true))
		cgn_fail(call, CGN_ENOMEM, CGN_REASON_NO_MEMORY);
}

static __always_inline int cgn_judge_connect(struct bpf_sock_addr *ctx, struct cgn_call *call)
{
	if (!cgn_identify(call, ctx->sk))
		return CGN_PROCEED;
	cgn_decide(call, NULL);
	if (cgn_has_effect(call) && !call->has_target)
		cgn_apply(ctx, call);
	if (cgn_conclude(call, NULL) == CGN_DENY)
		return CGN_DENY;
	cgn_remember(call);
	return CGN_PROCEED;
}

static __always_inline int cgn_enforce_connect(struct bpf_sock_addr *ctx, struct cgn_call *call, bool views)
{
	if (cgn_judge_connect(ctx, call) == CGN_DENY)
		return CGN_DENY;
	if (views && !call->has_target && !cgn_rewrites(call->rule))
		cgn_remember_peer(ctx->sk, call, false);
	cgn_remember_quiet(call);
	return CGN_PROCEED;
}

static __always_inline bool cgn_goes_elsewhere(const struct cgn_call *call)
{
	return cgn_rewrites(call->rule) && !call->has_target;
}

/* Whether a call is let pass and nothing else. */
static __always_inline bool cgn_passes4(struct bpf_sock_addr *ctx, const struct cgn_glance *glance)
{
	struct cgn_wanted wanted;

	cgn_want4(&wanted, CGN_HOOK_CONNECT, ctx->protocol, ctx->user_ip4, ctx->user_port);
	return wanted.address[1] && cgn_passes(glance, &wanted, ctx, CGN_HOOK_CONNECT);
}

static __always_inline bool cgn_passes6(struct bpf_sock_addr *ctx, const struct cgn_glance *glance)
{
	struct cgn_wanted wanted;

	cgn_want6(&wanted, CGN_HOOK_CONNECT, ctx->protocol, CGN_ADDRESS6(ctx->user_ip6), ctx->user_port);
	return (wanted.address[0] || wanted.address[1]) && cgn_passes(glance, &wanted, ctx, CGN_HOOK_CONNECT);
}

/* A function of its own: calls that pass at once need none of its stack. */
static __noinline int cgn_connect4(struct bpf_sock_addr *ctx, __u64 owner_id)
{
	struct cgn_call call;
	bool views, begun;

	begun = cgn_begin_as(&call, ctx->sk, owner_id, &views);
	if (!begun && !views)
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_CONNECT, ctx->protocol);
	cgn_set_address4(&call, ctx->user_ip4);
	if (!call.address[1])
		cgn_set_loopback4(&call, cgn_socket_source4(ctx->sk));
	call.port = bpf_ntohs(ctx->user_port);
	cgn_set_local(&call, ctx->sk);
	if (!begun) {
		cgn_remember_peer(ctx->sk, &call, false);
		return CGN_PROCEED;
	}
	if (views)
		cgn_join_connection(&call, ctx->sk);
	if (cgn_enforce_connect(ctx, &call, views) == CGN_DENY)
		return CGN_DENY;
	if (cgn_goes_elsewhere(&call))
		cgn_write4(ctx, call.target, call.target_port);
	return CGN_PROCEED;
}

/* A function of its own: calls that pass at once need none of its stack. */
static __noinline int cgn_connect6(struct bpf_sock_addr *ctx, __u64 owner_id)
{
	struct cgn_call call;
	bool views, begun;

	begun = cgn_begin_as(&call, ctx->sk, owner_id, &views);
	if (!begun && !views)
		return CGN_PROCEED;
	cgn_set_hook(&call, CGN_HOOK_CONNECT, ctx->protocol);
	cgn_set_address6(&call, CGN_ADDRESS6(ctx->user_ip6));
	cgn_set_loopback6(&call, cgn_is_bound_to_mapped(ctx->sk));
	if (call.family == CGN_FAMILY_V4 && !call.address[1])
		cgn_set_loopback4(&call, cgn_socket_source4(ctx->sk));
	call.port = bpf_ntohs(ctx->user_port);
	cgn_set_local(&call, ctx->sk);
	if (!begun) {
		cgn_remember_peer(ctx->sk, &call, false);
		return CGN_PROCEED;
	}
	if (views)
		cgn_join_connection(&call, ctx->sk);
	if (cgn_enforce_connect(ctx, &call, views) == CGN_DENY)
		return CGN_DENY;
	if (cgn_goes_elsewhere(&call))
		cgn_write6(ctx, call.target_family, call.target, call.target_port);
	return CGN_PROCEED;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct cgn_glance glance;

	if (ctx->user_family != AF_INET)
		return CGN_PROCEED;
	switch (cgn_glance(&glance, ctx, CGN_HOOK_CONNECT)) {
	case CGN_SIGHT_PASS:
		return CGN_PROCEED;
	case CGN_SIGHT_ASK:
		return cgn_passes4(ctx, &glance) ? CGN_PROCEED : cgn_connect4(ctx, glance.task_id);
	default:
		return cgn_connect4(ctx, 0);
	}
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct cgn_glance glance;

	if (ctx->user_family != AF_INET6)
		return CGN_PROCEED;
	switch (cgn_glance(&glance, ctx, CGN_HOOK_CONNECT)) {
	case CGN_SIGHT_PASS:
		return CGN_PROCEED;
	case CGN_SIGHT_ASK:
		return cgn_passes6(ctx, &glance) ? CGN_PROCEED : cgn_connect6(ctx, glance.task_id);
	default:
		return cgn_connect6(ctx, 0);
	}
}

char _license[] SEC("license") = "GPL";
