// SPDX-License-Identifier: GPL-2.0-only
/*
 * sendto(), sendmsg(), sendmmsg() on UDP sockets that name a destination or send control messages. Must not know what a
 * policy says.
 *
 * A connected socket that sends a control message comes here without an address (port 0, which no sender can name): its
 * peer is the destination. sendmsg4 also sees IPv6 sockets (mapped addresses) and AF_UNSPEC, which is real.
 */
#define CGN_DIRECTIONS (1 << CGN_DIR_EGRESS)
#include "egress.bpf.h"
#include "quick.bpf.h"
#include "talk.bpf.h"

static __always_inline bool cgn_is_for(const struct cgn_call *call, const struct cgn_endpoint *endpoint)
{
	return call->family == endpoint->family && call->port == endpoint->port &&
	       call->address[1] == endpoint->address[1] && call->address[0] == endpoint->address[0];
}

/*
 * A datagram of a connected socket to its peer stays one: it is judged as one to what was asked for, and nothing is
 * rewritten any more. What the program takes for its peer counts as the peer: then the address is to be written, and
 * the answer is true.
 */
static __noinline bool cgn_keep_peer(struct cgn_call *call, struct bpf_sock *sk, bool views)
{
	struct cgn_peers *peers = views ? cgn_peers_of(sk, false) : NULL;
	const struct cgn_view *view = NULL;
	struct cgn_endpoint connected;

	cgn_endpoint_of_peer(&connected, sk);
	if (peers)
		view = cgn_view_of_peer(peers, &connected);
	if (cgn_is_for(call, &connected)) {
		call->has_target = true;
		call->target[0] = call->address[0];
		call->target[1] = call->address[1];
		call->target_port = call->port;
		if (view)
			cgn_ask_again(call, view);
		return false;
	}
	if (!view || call->family != view->family || call->port != view->asked_port ||
	    call->address[1] != view->asked[1] || call->address[0] != view->asked[0])
		return false;
	cgn_ask_again(call, view);
	return true;
}

/* Whether the host has the source address, as far as can be told: live cells speak of the daemon's namespace. */
static __always_inline bool cgn_has_source(struct bpf_sock_addr *ctx, const struct cgn_call *call, __u32 live)
{
	struct cgn_control *control;
	__u32 zero = 0;

	if (cgn_live_cell(call->slot, live))
		return true;
	control = bpf_map_lookup_elem(&cgn_control, &zero);
	return !control || bpf_get_netns_cookie(ctx) != control->netns;
}

/* Notes a datagram of an unconnected socket: of any if it is redirected, else of one that had others redirected. */
static __noinline bool cgn_remember_talk(void *sk, struct cgn_call *call, bool rewritten)
{
	struct cgn_talks *talks = cgn_talks_of(sk, rewritten);

	if (!talks)
		return !rewritten;
	if (!rewritten) {
		call->target[0] = call->address[0];
		call->target[1] = call->address[1];
		call->target_port = call->port;
	}
	cgn_talk_note(talks, call);
	return true;
}

/* Does what the rule says beyond letting pass, but for writing addresses. Returns whether the source is to be written.
 */
static __always_inline bool cgn_apply(struct bpf_sock_addr *ctx, struct cgn_call *call)
{
	enum cgn_source_need need;
	int live;

	need = cgn_needs_source(call, ctx->sk, &live);
	if (need == CGN_SOURCE_REFUSED)
		return false;
	if (need == CGN_SOURCE_WANTED && !cgn_has_source(ctx, call, live)) {
		cgn_fail(call, CGN_EADDRNOTAVAIL, CGN_REASON_NO_SOURCE);
		return false;
	}
	if (cgn_rewrites(call->rule) && !cgn_remember_talk(ctx->sk, call, true))
		cgn_fail(call, CGN_ENOMEM, CGN_REASON_NO_MEMORY);
	return need == CGN_SOURCE_WANTED;
}

/* What is to be written into the context of a datagram that is let pass. */
struct cgn_rewriting {
	bool destination;
	bool source;
};

/* The verdict on a datagram. Without views its socket was not asked for its peer yet. */
static __always_inline int cgn_judge_sendmsg(struct bpf_sock_addr *ctx, struct cgn_call *call, bool views,
					     struct cgn_rewriting *rewriting)
{
	if (!cgn_identify(call, ctx->sk))
		return CGN_PROCEED;
	if (!views && ctx->sk->dst_port)
		cgn_keep_peer(call, ctx->sk, false);
	cgn_decide(call, NULL);
	if (cgn_has_effect(call) && !call->has_target)
		rewriting->source = cgn_apply(ctx, call);
	if (cgn_conclude(call, NULL) == CGN_DENY)
		return CGN_DENY;
	cgn_remember(call);
	if (cgn_rewrites(call->rule) && !call->has_target)
		rewriting->destination = true;
	return CGN_PROCEED;
}

static __always_inline int cgn_enforce_sendmsg(struct bpf_sock_addr *ctx, struct cgn_call *call, bool views,
					       struct cgn_rewriting *rewriting)
{
	if (cgn_judge_sendmsg(ctx, call, views, rewriting) == CGN_DENY)
		return CGN_DENY;
	if (views && !call->has_target && !rewriting->destination)
		cgn_remember_talk(ctx->sk, call, false);
	cgn_remember_quiet(call);
	return CGN_PROCEED;
}

/* Whether a datagram is let pass and nothing else. */
static __always_inline bool cgn_passes4(struct bpf_sock_addr *ctx, const struct cgn_glance *glance)
{
	__be32 address, port;
	struct cgn_wanted wanted;

	address = ctx->user_ip4;
	port = ctx->user_port;
	barrier_var(
		address); /* else the two loads are merged into one, of an address that the verifier does not follow */
	if (!port) {
		address = ctx->sk->dst_ip4;
		port = ctx->sk->dst_port;
	}
	cgn_want4(&wanted, CGN_HOOK_SENDMSG, ctx->protocol, address, port);
	return address && cgn_passes(glance, &wanted, ctx, CGN_HOOK_SENDMSG);
}

static __always_inline bool cgn_passes6(struct bpf_sock_addr *ctx, const struct cgn_glance *glance)
{
	__be32 port, address[4];
	struct cgn_wanted wanted;

	address[0] = ctx->user_ip6[0];
	address[1] = ctx->user_ip6[1];
	address[2] = ctx->user_ip6[2];
	address[3] = ctx->user_ip6[3];
	port = ctx->user_port;
	barrier_var(address[0]);
	barrier_var(address[1]);
	barrier_var(address[2]);
	barrier_var(address[3]);
	if (!port) {
		address[0] = ctx->sk->dst_ip6[0];
		address[1] = ctx->sk->dst_ip6[1];
		address[2] = ctx->sk->dst_ip6[2];
		address[3] = ctx->sk->dst_ip6[3];
		port = ctx->sk->dst_port;
	}
	cgn_want6(&wanted, CGN_HOOK_SENDMSG, ctx->protocol, address, port);
	return (wanted.address[0] || wanted.address[1]) && cgn_passes(glance, &wanted, ctx, CGN_HOOK_SENDMSG);
}

/* A function of its own: datagrams that pass at once need none of its stack. */
static __noinline int cgn_sendmsg4(struct bpf_sock_addr *ctx, __u64 owner_id)
{
	struct cgn_rewriting rewriting = {};
	struct cgn_call call;
	bool views, begun;

	begun = cgn_begin_as(&call, ctx->sk, owner_id, &views);
	if (!begun && !views)
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
	if (views && ctx->sk->dst_port)
		rewriting.destination = cgn_keep_peer(&call, ctx->sk, views);
	cgn_set_local(&call, ctx->sk);
	if (begun) {
		if (cgn_enforce_sendmsg(ctx, &call, views, &rewriting) == CGN_DENY)
			return CGN_DENY;
	} else if (!call.has_target) {
		cgn_remember_talk(ctx->sk, &call, false);
	}
	if (rewriting.source)
		ctx->msg_src_ip4 = bpf_htonl(call.local[1]);
	if (rewriting.destination)
		cgn_write4(ctx, call.target, call.target_port);
	return CGN_PROCEED;
}

/* A function of its own: datagrams that pass at once need none of its stack. */
static __noinline int cgn_sendmsg6(struct bpf_sock_addr *ctx, __u64 owner_id)
{
	struct cgn_rewriting rewriting = {};
	struct cgn_call call;
	bool views, begun;
	__be32 words[4];

	begun = cgn_begin_as(&call, ctx->sk, owner_id, &views);
	if (!begun && !views)
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
	if (views && ctx->sk->dst_port)
		rewriting.destination = cgn_keep_peer(&call, ctx->sk, views);
	cgn_set_local(&call, ctx->sk);
	if (begun) {
		if (cgn_enforce_sendmsg(ctx, &call, views, &rewriting) == CGN_DENY)
			return CGN_DENY;
	} else if (!call.has_target) {
		cgn_remember_talk(ctx->sk, &call, false);
	}
	if (rewriting.source) {
		cgn_to_words(words, CGN_FAMILY_V6, call.local);
		ctx->msg_src_ip6[0] = words[0];
		ctx->msg_src_ip6[1] = words[1];
		ctx->msg_src_ip6[2] = words[2];
		ctx->msg_src_ip6[3] = words[3];
	}
	if (rewriting.destination)
		cgn_write6(ctx, CGN_FAMILY_V6, call.target, call.target_port);
	return CGN_PROCEED;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct cgn_glance glance;

	switch (cgn_glance(&glance, ctx, CGN_HOOK_SENDMSG)) {
	case CGN_SIGHT_PASS:
		return CGN_PROCEED;
	case CGN_SIGHT_ASK:
		return cgn_passes4(ctx, &glance) ? CGN_PROCEED : cgn_sendmsg4(ctx, glance.task_id);
	default:
		return cgn_sendmsg4(ctx, 0);
	}
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct cgn_glance glance;

	switch (cgn_glance(&glance, ctx, CGN_HOOK_SENDMSG)) {
	case CGN_SIGHT_PASS:
		return CGN_PROCEED;
	case CGN_SIGHT_ASK:
		return cgn_passes6(ctx, &glance) ? CGN_PROCEED : cgn_sendmsg6(ctx, glance.task_id);
	default:
		return cgn_sendmsg6(ctx, 0);
	}
}

char _license[] SEC("license") = "GPL";
