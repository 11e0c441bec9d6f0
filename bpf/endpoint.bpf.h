/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Addresses and ports as contexts and sockets have them (network order, IPv4-mapped ones as IPv6), and as calls and
 * views have them. Must not know of verdicts.
 */
#ifndef CGNETD_ENDPOINT_BPF_H
#define CGNETD_ENDPOINT_BPF_H

#include "call.bpf.h"
#include <bpf/bpf_endian.h>

#define AF_UNSPEC 0
#define AF_INET 2
#define AF_INET6 10

/* The context's arrays may only be read word by word, at constant offsets. */
#define CGN_ADDRESS6(words) ((const __be32[4]){(words)[0], (words)[1], (words)[2], (words)[3]})

/* An address as cgn_flow_key.address, and a port in host order. No padding, as in struct cgn_call. */
struct cgn_endpoint {
	__u64 address[2];
	__u16 port;
	__u16 family; /* CGN_FAMILY_* */
	__u32 reserved;
};

static __always_inline bool cgn_is_mapped(const __be32 address[4])
{
	return !address[0] && !address[1] && address[2] == bpf_htonl(0xffff);
}

static __always_inline void cgn_from_words(__u64 address[2], const __be32 words[4])
{
	address[0] = (__u64)bpf_ntohl(words[0]) << 32 | bpf_ntohl(words[1]);
	address[1] = (__u64)bpf_ntohl(words[2]) << 32 | bpf_ntohl(words[3]);
}

/* The other way round; an IPv4 address becomes an IPv4-mapped one. */
static __always_inline void cgn_to_words(__be32 words[4], __u8 family, const __u64 address[2])
{
	__u64 low = family == CGN_FAMILY_V4 ? CGN_MAPPED_PREFIX | address[1] : address[1];

	words[0] = bpf_htonl(address[0] >> 32);
	words[1] = bpf_htonl(address[0]);
	words[2] = bpf_htonl(low >> 32);
	words[3] = bpf_htonl(low);
}

static __always_inline void cgn_endpoint4(struct cgn_endpoint *endpoint, __be32 address, __be16 port)
{
	endpoint->family = CGN_FAMILY_V4;
	endpoint->reserved = 0;
	endpoint->address[0] = 0;
	endpoint->address[1] = bpf_ntohl(address);
	endpoint->port = bpf_ntohs(port);
}

/* An IPv4-mapped address stays what it is. */
static __always_inline void cgn_endpoint6_as_is(struct cgn_endpoint *endpoint, const __be32 address[4], __be16 port)
{
	endpoint->family = CGN_FAMILY_V6;
	endpoint->reserved = 0;
	cgn_from_words(endpoint->address, address);
	endpoint->port = bpf_ntohs(port);
}

/* An IPv4-mapped address is the IPv4 address. */
static __always_inline void cgn_endpoint6(struct cgn_endpoint *endpoint, const __be32 address[4], __be16 port)
{
	if (cgn_is_mapped(address))
		cgn_endpoint4(endpoint, address[3], port);
	else
		cgn_endpoint6_as_is(endpoint, address, port);
}

/* What the socket is connected to; port 0: nothing. */
static __always_inline void cgn_endpoint_of_peer(struct cgn_endpoint *endpoint, struct bpf_sock *sk)
{
	if (sk->family == AF_INET)
		cgn_endpoint4(endpoint, sk->dst_ip4, sk->dst_port);
	else
		cgn_endpoint6(endpoint, CGN_ADDRESS6(sk->dst_ip6), sk->dst_port);
}

/* Writes an endpoint into the address that a context holds. */
static __always_inline void cgn_write4(struct bpf_sock_addr *ctx, const __u64 address[2], __u16 port)
{
	ctx->user_ip4 = bpf_htonl(address[1]);
	ctx->user_port = bpf_htons(port);
}

static __always_inline void cgn_write6(struct bpf_sock_addr *ctx, __u8 family, const __u64 address[2], __u16 port)
{
	__be32 words[4];

	cgn_to_words(words, family, address);
	ctx->user_ip6[0] = words[0];
	ctx->user_ip6[1] = words[1];
	ctx->user_ip6[2] = words[2];
	ctx->user_ip6[3] = words[3];
	ctx->user_port = bpf_htons(port);
}

#endif
