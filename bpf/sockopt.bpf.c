// SPDX-License-Identifier: GPL-2.0-only
/*
 * getsockopt(SO_ORIGINAL_DST) and IP6T_SO_ORIGINAL_DST of a connection that was redirected here: what its client had
 * asked for. Of any other one the kernel's own answer (conntrack's) stays as it is. Must not know who redirected it.
 */
#include "origin.bpf.h"

#define SOL_IP 0
#define SOL_IPV6 41
#define SO_ORIGINAL_DST 80 /* IP6T_SO_ORIGINAL_DST too */

#define CGN_SOCKADDR4_BYTES 16
#define CGN_SOCKADDR6_BYTES 28

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
	struct cgn_origin *origin;

	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && ctx->level != SOL_IPV6) || !cgn_has_views())
		return 1;
	origin = ctx->sk ? bpf_sk_storage_get(&cgn_origins, ctx->sk, NULL, 0) : NULL;
	if (origin && ctx->level == SOL_IP && origin->family == CGN_FAMILY_V4)
		cgn_answer4(ctx, origin);
	else if (origin && ctx->level == SOL_IPV6 && origin->family == CGN_FAMILY_V6)
		cgn_answer6(ctx, origin);
	return 1;
}

char _license[] SEC("license") = "GPL";
