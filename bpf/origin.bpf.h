/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a redirected client to the socket that accepts its connection: the table between them. Must not know policies,
 * or what asks for the origin.
 */
#ifndef CGNETD_ORIGIN_BPF_H
#define CGNETD_ORIGIN_BPF_H

#include "maps.bpf.h"
#include <bpf/bpf_endian.h>

#define AF_INET 2
#define AF_INET6 10

/* Whether there can be anything of ours to look for. */
static __always_inline bool cgn_has_views(void)
{
	struct cgn_control *control;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(&cgn_control, &zero);
	return control && control->flags & CGN_CONTROL_VIEWS;
}

/* An address of the kernel's as views have it, and its family: an IPv4-mapped one is the IPv4 address. */
static __always_inline __u32 cgn_widen(__u64 address[2], __u32 family, __be32 v4, const __be32 v6[4])
{
	bool is_mapped = family == AF_INET6 && !v6[0] && !v6[1] && v6[2] == bpf_htonl(0xffff);

	if (family == AF_INET || is_mapped) {
		address[0] = 0;
		address[1] = bpf_ntohl(is_mapped ? v6[3] : v4);
		return CGN_FAMILY_V4;
	}
	address[0] = (__u64)bpf_ntohl(v6[0]) << 32 | bpf_ntohl(v6[1]);
	address[1] = (__u64)bpf_ntohl(v6[2]) << 32 | bpf_ntohl(v6[3]);
	return CGN_FAMILY_V6;
}

/* The context's arrays may only be read word by word, at constant offsets. */
#define CGN_WORDS(words) ((const __be32[4]){(words)[0], (words)[1], (words)[2], (words)[3]})

/* Whether the view is of a redirected connection, to this server. */
static __always_inline bool cgn_is_redirected_to(const struct cgn_view *view, const struct cgn_handoff_key *key)
{
	if (view->family != key->family || view->actual_port != key->server_port || view->actual[0] != key->server[0] ||
	    view->actual[1] != key->server[1])
		return false;
	return view->asked_port != view->actual_port || view->asked[0] != view->actual[0] ||
	       view->asked[1] != view->actual[1];
}

#endif
