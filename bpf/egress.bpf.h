/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What connect and sendmsg have in common beyond the verdict: the errno of what cannot be done, the source address of a
 * rule. Must not know how a verdict is found.
 */
#ifndef CGNETD_EGRESS_BPF_H
#define CGNETD_EGRESS_BPF_H

#include "hook.bpf.h"
#include "view.bpf.h"

#define CGN_ENOMEM 12
#define CGN_EADDRNOTAVAIL 99

/* What a socket sends from, in the family of the call. */
static __always_inline void cgn_bound_to(__u64 address[2], const struct cgn_call *call, struct bpf_sock *sk)
{
	if (call->family == CGN_FAMILY_V4 && sk->family == AF_INET) {
		address[0] = 0;
		address[1] = bpf_ntohl(sk->src_ip4);
		return;
	}
	cgn_from_words(address, CGN_ADDRESS6(sk->src_ip6));
	if (call->family == CGN_FAMILY_V4 && !address[0] && address[1] >> 32 == CGN_MAPPED_PREFIX >> 32)
		address[1] = (__u32)address[1];
}

enum cgn_source_need {
	CGN_SOURCE_KEPT = 0, /* the rule gives none, or the socket has it already */
	CGN_SOURCE_WANTED = 1, /* call->local is to be the source */
	CGN_SOURCE_REFUSED = 2, /* call->rule denies now */
};

/* Whether the address that the socket is bound to was a rule's, and can be another one's now: it has no port. */
static __always_inline bool cgn_source_is_ours(struct bpf_sock *sk)
{
	struct cgn_stamp *stamp;

	if (sk->src_port)
		return false;
	stamp = bpf_sk_storage_get(&cgn_stamps, sk, NULL, 0);
	return stamp && stamp->source_is_ours;
}

/* Whether the rule's source is still to be given to the socket. One that is bound to another address cannot take it. */
static __always_inline enum cgn_source_need cgn_needs_source(struct cgn_call *call, struct bpf_sock *sk, int *live)
{
	__u64 bound[2];

	*live = cgn_source(call);
	if (*live == CGN_SOURCE_NONE)
		return CGN_SOURCE_KEPT;
	if (*live == CGN_SOURCE_CORRUPT) {
		call->rule = call->shadow = CGN_CELL_CORRUPT;
		return CGN_SOURCE_REFUSED;
	}
	cgn_bound_to(bound, call, sk);
	if (bound[0] == call->local[0] && bound[1] == call->local[1])
		return CGN_SOURCE_KEPT;
	if ((!bound[0] && !bound[1]) || cgn_source_is_ours(sk))
		return CGN_SOURCE_WANTED;
	cgn_fail(call, CGN_EADDRNOTAVAIL, CGN_REASON_NO_SOURCE);
	return CGN_SOURCE_REFUSED;
}

#endif
