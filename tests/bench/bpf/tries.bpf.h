/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How others look an address up: a hash of single addresses, then the kernel's LPM trie of its family. `group` is what
 * a program with several policies puts before each. Must not know who asks.
 */
#ifndef CGNETD_BENCH_TRIES_BPF_H
#define CGNETD_BENCH_TRIES_BPF_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct tries_host {
	__u32 group;
	__u32 family;
	__u64 address[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* of the size that is needed, as the next two: the loader puts its own in */
	__type(key, struct tries_host);
	__type(value, __u32);
} tries_hosts SEC(".maps");

struct tries_prefix4 {
	__u32 bits;
	__u32 group;
	__u32 address; /* in the order of the wire */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tries_prefix4);
	__type(value, __u32);
} tries_trie4 SEC(".maps");

struct tries_prefix6 {
	__u32 bits;
	__u32 group;
	__u32 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tries_prefix6);
	__type(value, __u32);
} tries_trie6 SEC(".maps");

static __always_inline __u32 *tries_find4(__u32 group, __u32 address)
{
	struct tries_prefix4 prefix = {.bits = 64, .group = group, .address = bpf_htonl(address)};

	return bpf_map_lookup_elem(&tries_trie4, &prefix);
}

static __always_inline __u32 *tries_find6(__u32 group, __u64 high, __u64 low)
{
	struct tries_prefix6 prefix = {
		.bits = 160,
		.group = group,
		.address = {bpf_htonl(high >> 32), bpf_htonl(high), bpf_htonl(low >> 32), bpf_htonl(low)},
	};

	return bpf_map_lookup_elem(&tries_trie6, &prefix);
}

/* The value of the longest prefix that holds the address (IPv4 in the low 32 bits), 0 if there is none. */
static __always_inline __u32 tries_find(__u32 group, __u32 family, __u64 high, __u64 low)
{
	struct tries_host host = {.group = group, .family = family, .address = {high, low}};
	__u32 *found = bpf_map_lookup_elem(&tries_hosts, &host);

	if (!found)
		found = family == 4 ? tries_find4(group, low) : tries_find6(group, high, low);
	return found ? *found : 0;
}

#endif
