// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a program is told of its rewritten sockets: getpeername(), getsockname(), and the sender of a UDP datagram.
 * These hooks cannot deny. Must not know of policies or verdicts.
 */
#include "queue.bpf.h"
#include "talk.bpf.h"
#include "view.bpf.h"

#define CGN_PROCEED 1

/* The peer that was asked for, NULL if the socket has no view of this one. */
static __always_inline const struct cgn_view *cgn_asked_peer(void *sk, const struct cgn_endpoint *actual)
{
	const struct cgn_peers *peers = cgn_peers_of(sk, false);

	return peers ? cgn_view_of_peer(peers, actual) : NULL;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct cgn_endpoint actual;
	const struct cgn_view *view;

	cgn_endpoint4(&actual, ctx->user_ip4, ctx->user_port);
	view = cgn_asked_peer(ctx->sk, &actual);
	if (view)
		cgn_write4(ctx, view->asked, view->asked_port);
	return CGN_PROCEED;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct cgn_endpoint actual;
	const struct cgn_view *view;

	cgn_endpoint6(&actual, CGN_ADDRESS6(ctx->user_ip6), ctx->user_port);
	view = cgn_asked_peer(ctx->sk, &actual);
	if (view)
		cgn_write6(ctx, view->family, view->asked, view->asked_port);
	return CGN_PROCEED;
}

static __always_inline bool cgn_is_any(const struct cgn_view *view)
{
	return !view->asked[0] && !view->asked[1];
}

/*
 * The local address as it was asked for. A port that was left to the kernel is told as it is, and so is the address of
 * a connection whose socket was to be on all of them.
 */
static __always_inline bool cgn_asked_local(struct bpf_sock *sk, struct cgn_endpoint *local)
{
	const struct cgn_view *view = cgn_bind_view_of(sk, false);

	if (!view || view->family != local->family || (view->actual_port && view->actual_port != local->port))
		return false;
	if (view->actual[1] == local->address[1] && view->actual[0] == local->address[0]) {
		if (!sk->dst_port || !cgn_is_any(view)) {
			local->address[0] = view->asked[0];
			local->address[1] = view->asked[1];
		}
	} else if (!view->actual_port) {
		return false;
	}
	if (view->asked_port && view->actual_port)
		local->port = view->asked_port;
	return true;
}

SEC("cgroup/getsockname4")
int getsockname4(struct bpf_sock_addr *ctx)
{
	struct cgn_endpoint local;

	cgn_endpoint4(&local, ctx->user_ip4, ctx->user_port);
	if (cgn_asked_local(ctx->sk, &local))
		cgn_write4(ctx, local.address, local.port);
	return CGN_PROCEED;
}

SEC("cgroup/getsockname6")
int getsockname6(struct bpf_sock_addr *ctx)
{
	struct cgn_endpoint local;

	cgn_endpoint6_as_is(&local, CGN_ADDRESS6(ctx->user_ip6), ctx->user_port);
	if (cgn_asked_local(ctx->sk, &local))
		cgn_write6(ctx, CGN_FAMILY_V6, local.address, local.port);
	return CGN_PROCEED;
}

/* Where the datagram from `actual` seems to be from; false if that is where it is from. */
static __always_inline bool cgn_asked_sender(struct bpf_sock *sk, const struct cgn_endpoint *actual,
					     struct cgn_endpoint *asked)
{
	const struct cgn_view *view = sk->dst_port ? cgn_asked_peer(sk, actual) : NULL;
	const struct cgn_talk *talk;
	struct cgn_talks *talks;

	if (view) {
		asked->address[0] = view->asked[0];
		asked->address[1] = view->asked[1];
		asked->port = view->asked_port;
		return true;
	}
	talks = cgn_talks_of(sk, false);
	talk = talks ? cgn_talk_take(talks, actual, cgn_is_peeked(sk)) : NULL;
	if (!talk)
		return false;
	asked->address[0] = talk->asked[0];
	asked->address[1] = talk->asked[1];
	asked->port = talk->asked_port;
	return true;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct cgn_endpoint actual, asked;

	cgn_endpoint4(&actual, ctx->user_ip4, ctx->user_port);
	if (cgn_asked_sender(ctx->sk, &actual, &asked))
		cgn_write4(ctx, asked.address, asked.port);
	return CGN_PROCEED;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct cgn_endpoint actual, asked;

	cgn_endpoint6(&actual, CGN_ADDRESS6(ctx->user_ip6), ctx->user_port);
	if (cgn_asked_sender(ctx->sk, &actual, &asked))
		cgn_write6(ctx, actual.family, asked.address, asked.port);
	return CGN_PROCEED;
}

char _license[] SEC("license") = "GPL";
