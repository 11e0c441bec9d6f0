/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a program sees of its rewritten sockets: the peer and the local address as it asked for them, beside what they
 * are. Kept with the socket. Must not know why a call was rewritten.
 *
 * A view is a claim about one actual address and port; it holds only while the socket has those.
 */
#ifndef CGNETD_VIEW_BPF_H
#define CGNETD_VIEW_BPF_H

#include "call.bpf.h"
#include "endpoint.bpf.h"
#include <bpf/bpf_core_read.h>

struct mptcp_sock {
} __attribute__((preserve_access_index));

/*
 * The MPTCP socket that a subflow is of, NULL if it is of none. connect() and bind() of an MPTCP socket reach their
 * hooks through its first subflow, getpeername() and getsockname() through the socket itself.
 */
static __always_inline void *cgn_whole_socket(void *sk)
{
	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_skc_to_mptcp_sock) ||
	    !bpf_core_type_exists(struct mptcp_sock))
		return NULL;
	return bpf_skc_to_mptcp_sock(sk);
}

static __always_inline bool cgn_view_is_of(const struct cgn_view *view, const struct cgn_endpoint *actual)
{
	return view->family == actual->family && view->actual_port == actual->port &&
	       view->actual[1] == actual->address[1] && view->actual[0] == actual->address[0];
}

/* The view of a peer: of the connect() that came last, or of the one before if the last one failed. */
static __always_inline const struct cgn_view *cgn_view_of_peer(const struct cgn_peers *peers,
							       const struct cgn_endpoint *actual)
{
	if (cgn_view_is_of(&peers->now, actual))
		return &peers->now;
	return cgn_view_is_of(&peers->before, actual) ? &peers->before : NULL;
}

static __always_inline struct cgn_peers *cgn_peers_of(void *sk, bool create)
{
	return bpf_sk_storage_get(&cgn_peers, sk, NULL, create ? BPF_SK_STORAGE_GET_F_CREATE : 0);
}

/* The connect() that goes on becomes the latest, `connected` (port 0: none) being what the socket is connected to now.
 */
static __always_inline void cgn_peers_push(struct cgn_peers *peers, const struct cgn_endpoint *connected,
					   const struct cgn_call *call, bool rewritten)
{
	struct cgn_view *now = &peers->now;

	if (connected->port && cgn_view_is_of(now, connected))
		peers->before = *now;
	now->asked[0] = call->address[0];
	now->asked[1] = call->address[1];
	now->asked_port = call->port;
	now->actual[0] = rewritten ? call->target[0] : call->address[0];
	now->actual[1] = rewritten ? call->target[1] : call->address[1];
	now->actual_port = rewritten ? call->target_port : call->port;
	now->service = rewritten ? call->service : 0;
	now->family = call->family;
}

/*
 * Remembers the peer of a connect() that is let pass: of any if it is rewritten, else of a socket that has a view
 * already. False: there was no memory.
 */
CGN_STATIC_NOINLINE bool cgn_remember_peer(struct bpf_sock *sk, const struct cgn_call *call, bool rewritten)
{
	void *whole = cgn_whole_socket(sk);
	struct cgn_endpoint connected;
	struct cgn_peers *peers;

	cgn_endpoint_of_peer(&connected, sk);
	peers = cgn_peers_of(sk, rewritten);
	if (peers)
		cgn_peers_push(peers, &connected, call, rewritten);
	else if (rewritten)
		return false;
	if (!whole)
		return true;
	peers = cgn_peers_of(whole, rewritten);
	if (peers)
		cgn_peers_push(peers, &connected, call, rewritten);
	return peers || !rewritten;
}

/* Turns a call to an actual peer into the call that the program asked for, to a target that is given. */
static __always_inline void cgn_ask_again(struct cgn_call *call, const struct cgn_view *view)
{
	call->has_target = true;
	call->target[0] = view->actual[0];
	call->target[1] = view->actual[1];
	call->target_port = view->actual_port;
	call->target_family = view->family;
	call->service = view->service;
	call->address[0] = view->asked[0];
	call->address[1] = view->asked[1];
	call->port = view->asked_port;
}

/* Views of bind(): addresses as the socket has them, IPv4-mapped ones of an IPv6 socket as IPv6. */
static __always_inline void cgn_bind_view_fill(struct cgn_view *view, const struct cgn_endpoint *asked,
					       const struct cgn_endpoint *actual)
{
	view->asked[0] = asked->address[0];
	view->asked[1] = asked->address[1];
	view->asked_port = asked->port;
	view->actual[0] = actual->address[0];
	view->actual[1] = actual->address[1];
	view->actual_port = actual->port;
	view->family = actual->family;
}

static __always_inline struct cgn_view *cgn_bind_view_of(void *sk, bool create)
{
	return bpf_sk_storage_get(&cgn_binds, sk, NULL, create ? BPF_SK_STORAGE_GET_F_CREATE : 0);
}

/* As cgn_remember_peer(), of a bind(). */
CGN_STATIC_NOINLINE bool cgn_remember_bind(void *sk, const struct cgn_endpoint *asked,
					   const struct cgn_endpoint *actual, bool rewritten)
{
	void *whole = cgn_whole_socket(sk);
	struct cgn_view *view = cgn_bind_view_of(sk, rewritten);

	if (view)
		cgn_bind_view_fill(view, asked, actual);
	else if (rewritten)
		return false;
	if (!whole)
		return true;
	view = cgn_bind_view_of(whole, rewritten);
	if (view)
		cgn_bind_view_fill(view, asked, actual);
	return view || !rewritten;
}

#endif
