// SPDX-License-Identifier: GPL-2.0-only
/*
 * getsockopt(SO_ORIGINAL_DST) and IP6T_SO_ORIGINAL_DST of a connection that was redirected here: what its client had
 * asked for. Of any other one the kernel's own answer (conntrack's) stays as it is. Must not know who redirected it.
 */
#include "origin.bpf.h"

#define SOL_IP 0
#define SOL_IPV6 41
#define SO_ORIGINAL_DST 80 /* IP6T_SO_ORIGINAL_DST too */
#define CGN_IPPROTO_MPTCP 262

#define CGN_SOCKADDR4_BYTES 16
#define CGN_SOCKADDR6_BYTES 28

/*
 * The origin of an MPTCP connection. It was left with the socket of its first subflow, which is out of reach here, but
 * the addresses are the subflow's: what the client left behind is there as long as that is connected.
 */
static __always_inline bool cgn_find_handed_over(struct bpf_sockopt *ctx, struct bpf_sock *sk,
						 struct cgn_origin *origin)
{
	struct cgn_handoff_key key;
	struct cgn_origin *found;

	cgn_widen(key.server, sk->family, sk->src_ip4, CGN_WORDS(sk->src_ip6));
	key.family = cgn_widen(key.client, sk->family, sk->dst_ip4, CGN_WORDS(sk->dst_ip6));
	key.server_port = sk->src_port;
	key.client_port = bpf_ntohs(sk->dst_port);
	key.netns = bpf_get_netns_cookie(ctx);
	found = bpf_map_lookup_elem(&cgn_handoffs, &key);
	if (found)
		*origin = *found;
	return found;
}

static __always_inline bool cgn_find_origin(struct bpf_sockopt *ctx, struct cgn_origin *origin)
{
	struct bpf_sock *sk = ctx->sk;
	struct cgn_origin *kept;

	if (!sk || !cgn_has_views())
		return false;
	kept = bpf_sk_storage_get(&cgn_origins, sk, NULL, 0);
	if (kept)
		*origin = *kept;
	return kept || (sk->protocol == CGN_IPPROTO_MPTCP && cgn_find_handed_over(ctx, sk, origin));
}

/* The verifier takes either store, but not the one that clang would make of both. */
static __always_inline void cgn_succeed(struct bpf_sockopt *ctx, int bytes)
{
	ctx->optlen = bytes;
	barrier();
	ctx->retval = 0;
}

/* A struct sockaddr_in: family in host order, port and address in network order. */
static __always_inline void cgn_answer4(struct bpf_sockopt *ctx, const struct cgn_origin *origin)
{
	__u16 *half = ctx->optval;
	__u32 *word = ctx->optval;
	__u64 *padding = ctx->optval;

	if (ctx->optval + CGN_SOCKADDR4_BYTES > ctx->optval_end)
		return;
	half[0] = AF_INET;
	half[1] = bpf_htons(origin->port);
	word[1] = bpf_htonl(origin->address[1]);
	padding[1] = 0;
	cgn_succeed(ctx, CGN_SOCKADDR4_BYTES);
}

/* A struct sockaddr_in6, of no scope. */
static __always_inline void cgn_answer6(struct bpf_sockopt *ctx, const struct cgn_origin *origin)
{
	__u16 *half = ctx->optval;
	__u32 *word = ctx->optval;

	if (ctx->optval + CGN_SOCKADDR6_BYTES > ctx->optval_end)
		return;
	half[0] = AF_INET6;
	half[1] = bpf_htons(origin->port);
	word[1] = 0;
	word[2] = bpf_htonl(origin->address[0] >> 32);
	word[3] = bpf_htonl(origin->address[0]);
	word[4] = bpf_htonl(origin->address[1] >> 32);
	word[5] = bpf_htonl(origin->address[1]);
	word[6] = 0;
	cgn_succeed(ctx, CGN_SOCKADDR6_BYTES);
}

SEC("cgroup/getsockopt")
int getsockopt(struct bpf_sockopt *ctx)
{
	struct cgn_origin origin;

	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && ctx->level != SOL_IPV6))
		return 1;
	if (!cgn_find_origin(ctx, &origin))
		return 1;
	if (ctx->level == SOL_IP && origin.family == CGN_FAMILY_V4)
		cgn_answer4(ctx, &origin);
	else if (ctx->level == SOL_IPV6 && origin.family == CGN_FAMILY_V6)
		cgn_answer6(ctx, &origin);
	return 1;
}

char _license[] SEC("license") = "GPL";
