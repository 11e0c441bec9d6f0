// SPDX-License-Identifier: GPL-2.0-only
/*
 * Closes the sockets that were sent to one backend of a service, whoever has them: one walk over the sockets of the
 * network namespace that opens the iterator. For kernels with bpf_sock_destroy() (6.5). Not attached to anything. Must
 * not know why a backend is to be left.
 */
#include "endpoint.bpf.h"
#include "kernel_types.bpf.h"
#include "maps.bpf.h"

/* Whose sockets: cgn_doomed[0], set before each walk. Of this object alone. */
struct cgn_doom {
	__u64 service; /* CGN_SERVICE_KEY; 0 closes nothing */
	__u64 address[2]; /* of the backend, as cgn_flow_key.address */
	__u16 port; /* 0: any */
	__u8 family; /* CGN_FAMILY_V4 or CGN_FAMILY_V6 */
	__u8 reserved[5];
	__u64 destroyed; /* out: sockets closed, added up */
};

_Static_assert(sizeof(struct cgn_doom) == 40, "cgn_doom");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cgn_doom);
} cgn_doomed SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_iter_meta;
struct udp_sock;

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
};

#pragma clang attribute pop

/* enum of net/tcp_states.h */
#define CGN_TCP_TIME_WAIT 6
#define CGN_TCP_NEW_SYN_RECV 12

extern int bpf_sock_destroy(struct sock_common *sock) __ksym __weak;

static __always_inline bool cgn_is_doomed(const struct cgn_view *view, const struct cgn_doom *doom)
{
	return doom->service && view->service == doom->service && view->family == doom->family &&
	       (!doom->port || view->actual_port == doom->port) && view->actual[0] == doom->address[0] &&
	       view->actual[1] == doom->address[1];
}

/* Neither a connection that is being made nor one that waits after its end is a whole socket, with storage. */
static __always_inline bool cgn_is_whole(struct sock_common *sk)
{
	return sk->skc_state != CGN_TCP_TIME_WAIT && sk->skc_state != CGN_TCP_NEW_SYN_RECV;
}

/* Whether the view is of what the socket is connected to: it stays when connect() failed or was undone later. */
static __always_inline bool cgn_is_connected(struct sock_common *sk, const struct cgn_view *view)
{
	const __be32 *words = sk->skc_v6_daddr.in6_u.u6_addr32;
	__u64 address[2];

	if (sk->skc_dport != bpf_htons(view->actual_port))
		return false;
	if (view->family == CGN_FAMILY_V4)
		return bpf_ntohl(sk->skc_daddr) == view->actual[1];
	cgn_from_words(address, words);
	return address[0] == view->actual[0] && address[1] == view->actual[1];
}

static __always_inline void cgn_destroy(struct sock_common *sk)
{
	struct cgn_peers *peers;
	struct cgn_doom *doom;
	__u32 zero = 0;

	doom = bpf_map_lookup_elem(&cgn_doomed, &zero);
	if (!doom || !sk || !cgn_is_whole(sk))
		return;
	peers = bpf_sk_storage_get(&cgn_peers, sk, NULL, 0);
	if (peers && cgn_is_doomed(&peers->now, doom) && cgn_is_connected(sk, &peers->now) && !bpf_sock_destroy(sk))
		__sync_fetch_and_add(&doom->destroyed, 1);
}

SEC("iter/tcp")
int iter_tcp(struct bpf_iter__tcp *ctx)
{
	cgn_destroy(ctx->sk_common);
	return 0;
}

SEC("iter/udp")
int iter_udp(struct bpf_iter__udp *ctx)
{
	cgn_destroy((struct sock_common *)ctx->udp_sk);
	return 0;
}

char _license[] SEC("license") = "GPL";
