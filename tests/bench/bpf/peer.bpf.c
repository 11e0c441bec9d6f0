// SPDX-License-Identifier: GPL-2.0-only
/*
 * What programs of others do: the calling task's cgroup, its group in a hash, and the address in a hash and the
 * kernel's LPM trie; what is found is denied. Must not share anything with the programs that it is compared with.
 */
#include "tries.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} peer_groups SEC(".maps");

static __always_inline int peer_allows(__u32 address)
{
	__u64 cgroup_id = bpf_get_current_cgroup_id();
	__u32 *group = bpf_map_lookup_elem(&peer_groups, &cgroup_id);

	return !group || !tries_find(*group, 4, 0, address);
}

SEC("cgroup/connect4")
int peer_connect4(struct bpf_sock_addr *call)
{
	return peer_allows(bpf_ntohl(call->user_ip4));
}

SEC("cgroup/sendmsg4")
int peer_sendmsg4(struct bpf_sock_addr *call)
{
	return peer_allows(bpf_ntohl(call->user_ip4));
}

char _license[] SEC("license") = "GPL";
