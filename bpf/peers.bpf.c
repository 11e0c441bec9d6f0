// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tells which sockets hold views of their peers, of all network namespaces: one walk over the entries of cgn_peers, not
 * over all sockets. For kernels without bpf_sock_destroy(), where the daemon closes flows by sock_diag, which cannot
 * show what is kept with UDP sockets. Not attached to anything. Must not know why anybody asks.
 */
#include "maps.bpf.h"
#include <bpf/bpf_endian.h>

/* What is written for each socket; addresses and ports but the view's are of network byte order. */
struct cgn_peer_record {
	__u64 netns; /* cookie */
	__u64 cookie; /* of the socket */
	struct cgn_view view; /* cgn_peers.now */
	__be32 local[4]; /* IPv4: the first word */
	__be32 peer[4];
	__be16 local_port;
	__be16 peer_port; /* 0: not connected */
	__u32 device;
	__u16 family; /* AF_INET, AF_INET6 */
	__u16 protocol; /* IPPROTO_* */
	__u32 reserved;
};

_Static_assert(sizeof(struct cgn_peer_record) == 112, "cgn_peer_record");

#define CGN_AF_INET6 10

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net___peers {
	__u64 net_cookie;
};

struct possible_net___peers {
	struct net___peers *net;
};

struct in6_addr___peers {
	union {
		__be32 u6_addr32[4];
	} in6_u;
};

struct sock_common___peers {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	int skc_bound_dev_if;
	struct possible_net___peers skc_net;
	struct in6_addr___peers skc_v6_daddr;
	struct in6_addr___peers skc_v6_rcv_saddr;
};

struct sock___peers {
	struct sock_common___peers __sk_common;
	__u16 sk_protocol;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct sock;

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	struct cgn_peers *value;
};

#pragma clang attribute pop

static __always_inline void cgn_tell_ends(struct cgn_peer_record *record, const struct sock___peers *sk)
{
	if (record->family != CGN_AF_INET6) {
		record->local[0] = sk->__sk_common.skc_rcv_saddr;
		record->peer[0] = sk->__sk_common.skc_daddr;
		return;
	}
#pragma unroll
	for (int word = 0; word < 4; word++) {
		record->local[word] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[word];
		record->peer[word] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[word];
	}
}

SEC("iter/bpf_sk_storage_map")
int iter_peers(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	const struct sock___peers *sk = (void *)ctx->sk;
	struct cgn_peers *peers = ctx->value;
	struct cgn_peer_record record = {};

	if (!sk || !peers)
		return 0; /* the walk is over */
	record.netns = sk->__sk_common.skc_net.net->net_cookie;
	record.cookie = bpf_get_socket_cookie((void *)sk);
	record.view = peers->now;
	record.family = sk->__sk_common.skc_family;
	record.protocol = sk->sk_protocol;
	record.local_port = bpf_htons(sk->__sk_common.skc_num);
	record.peer_port = sk->__sk_common.skc_dport;
	record.device = sk->__sk_common.skc_bound_dev_if;
	cgn_tell_ends(&record, sk);
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record)); /* no room: the kernel shows the socket once more */
	return 0;
}

char _license[] SEC("license") = "GPL";
