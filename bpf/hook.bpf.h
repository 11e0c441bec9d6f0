/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a hook's context to a call, and from a verdict to what the hook returns: addresses in the form that policies
 * speak of, protocol classes, the deny. Must not know how a verdict is found.
 */
#ifndef CGNETD_HOOK_BPF_H
#define CGNETD_HOOK_BPF_H

#include "account.bpf.h"
#include "decide.bpf.h"
#include "endpoint.bpf.h"
#include "identity.bpf.h"

#define CGN_PROCEED 1
#define CGN_DENY 0
#define CGN_LOOPBACK4 0x7f000001

/* Set before loading. Without bpf_set_retval() (5.18) every deny is EPERM. */
const volatile __u8 cgn_has_set_retval = 0;

enum cgn_ipproto {
	CGN_IPPROTO_ICMP = 1,
	CGN_IPPROTO_TCP = 6,
	CGN_IPPROTO_UDP = 17,
	CGN_IPPROTO_ICMPV6 = 58,
	CGN_IPPROTO_SCTP = 132,
	CGN_IPPROTO_UDPLITE = 136,
	CGN_IPPROTO_MPTCP = 262,
};

static __always_inline enum cgn_proto cgn_proto_of(__u32 protocol)
{
	switch (protocol) {
	case CGN_IPPROTO_TCP:
	case CGN_IPPROTO_MPTCP:
		return CGN_PROTO_TCP;
	case CGN_IPPROTO_UDP:
		return CGN_PROTO_UDP;
	case CGN_IPPROTO_UDPLITE:
		return CGN_PROTO_UDPLITE;
	case CGN_IPPROTO_SCTP:
		return CGN_PROTO_SCTP;
	case CGN_IPPROTO_ICMP:
	case CGN_IPPROTO_ICMPV6:
		return CGN_PROTO_ICMP;
	default:
		return CGN_PROTO_OTHER;
	}
}

/* The context of a call of an address family within its direction. */
static __always_inline __u8 cgn_context_of(enum cgn_hook hook, __u32 protocol)
{
	return cgn_proto_of(protocol) + (hook == CGN_HOOK_SENDMSG ? CGN_PROTO_COUNT : 0);
}

static __always_inline void cgn_set_hook(struct cgn_call *call, enum cgn_hook hook, __u32 protocol)
{
	call->hook = hook;
	call->protocol = protocol;
	call->direction = hook == CGN_HOOK_BIND || hook == CGN_HOOK_POST_BIND ? CGN_DIR_BIND
			  : hook == CGN_HOOK_CREATE			      ? CGN_DIR_SOCKET
									      : CGN_DIR_EGRESS;
	call->context = cgn_context_of(hook, protocol);
}

/* Ports and addresses come in network order, as the contexts have them. */
static __always_inline void cgn_set_address4(struct cgn_call *call, __be32 address)
{
	call->family = CGN_FAMILY_V4;
	call->address[0] = 0;
	call->address[1] = bpf_ntohl(address);
}

/* An IPv4-mapped address is the IPv4 address. */
static __always_inline void cgn_set_address6(struct cgn_call *call, const __be32 address[4])
{
	if (cgn_is_mapped(address)) {
		cgn_set_address4(call, address[3]);
		return;
	}
	call->family = CGN_FAMILY_V6;
	cgn_from_words(call->address, address);
}

/* The kernel sends what is for 0.0.0.0 to the socket's own source address, or to loopback. */
static __always_inline void cgn_set_loopback4(struct cgn_call *call, __be32 source)
{
	if (call->family == CGN_FAMILY_V4 && !call->address[1])
		call->address[1] = source ? bpf_ntohl(source) : CGN_LOOPBACK4;
}

/* The kernel takes :: for ::1, or for 127.0.0.1 on a socket bound to an IPv4 address. */
static __always_inline void cgn_set_loopback6(struct cgn_call *call, bool bound_to_mapped)
{
	if (call->family != CGN_FAMILY_V6 || call->address[0] || call->address[1])
		return;
	if (bound_to_mapped)
		cgn_set_address4(call, bpf_htonl(CGN_LOOPBACK4));
	else
		call->address[1] = 1;
}

static __always_inline bool cgn_is_bound_to_mapped(struct bpf_sock *sk)
{
	return cgn_is_mapped(CGN_ADDRESS6(sk->src_ip6));
}

/* What the socket is bound to, for the event: in the family of the call's address. */
static __always_inline void cgn_set_local(struct cgn_call *call, struct bpf_sock *sk)
{
	call->local_port = sk->src_port;
	if (call->family == CGN_FAMILY_V4) {
		call->local[1] = bpf_ntohl(sk->src_ip4);
	} else {
		cgn_from_words(call->local, CGN_ADDRESS6(sk->src_ip6));
	}
}

/* Remembers that nothing governs the task's cgroup, if that is so. */
static __always_inline void cgn_remember_quiet(const struct cgn_call *call)
{
	if (call->socket_id == call->task_id && call->standing == CGN_STANDING_QUIET)
		cgn_keep_quiet(call);
}

/* Denies a call that the rules let pass. The rule that did so tells it, and would have under audit too. */
static __always_inline void cgn_fail(struct cgn_call *call, __u32 error, enum cgn_reason reason)
{
	bool is_same = CGN_CELL_ID(call->shadow) == CGN_CELL_ID(call->rule);

	call->rule = cgn_as_deny(call->rule, error);
	if (is_same)
		call->shadow = call->rule;
	call->reason = reason;
}

/*
 * Counts and reports what was decided; CGN_DENY or CGN_PROCEED. Never lifts a deny of another program: it only adds its
 * own. `name` is that of a UNIX socket as the program gave it, else NULL.
 */
static __always_inline int cgn_conclude(struct cgn_call *call, const struct cgn_name *name)
{
	if (!call->rule)
		return CGN_PROCEED;
	cgn_count(call);
	if (cgn_is_event(call))
		cgn_report(call, name);
	if (!cgn_denies(call->rule))
		return CGN_PROCEED;
	if (cgn_has_set_retval)
		bpf_set_retval(-(int)cgn_errno(call->rule));
	return CGN_DENY;
}

/* The verdict on a call that no rule changes: a new socket, a port that was picked. None is remembered. */
static __always_inline bool cgn_refuses(struct cgn_call *call, void *sk)
{
	if (!cgn_identify(call, sk))
		return false;
	cgn_decide_bind(call);
	return cgn_conclude(call, NULL) == CGN_DENY;
}

/* Whether the call was let pass by a rule that does more to it. */
static __always_inline bool cgn_has_effect(const struct cgn_call *call)
{
	return CGN_CELL_FLAGS(call->rule) & CGN_RULE_EFFECT && !cgn_denies(call->rule) && !call->by_socket;
}

/* Remembers a verdict that leaves nothing but a count. */
static __always_inline void cgn_remember(const struct cgn_call *call)
{
	if (CGN_CELL_ACTION(call->rule) == CGN_ACTION_ALLOW && !(CGN_CELL_FLAGS(call->rule) & CGN_RULE_EFFECT) &&
	    call->socket_id == call->task_id && CGN_CELL_ID(call->shadow) == CGN_CELL_ID(call->rule) &&
	    !cgn_is_event(call))
		cgn_keep_allow(call);
}

#endif
