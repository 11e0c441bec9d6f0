/* SPDX-License-Identifier: GPL-2.0-only */
/* Programs for the tests of the bindings: each does the least that can be told from outside. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

const volatile __u32 sample_limit = 7;
const volatile __u8 sample_flag = 0;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} sample_cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} sample_ring SEC(".maps");

static __always_inline void bump(__u32 cell)
{
	__u64 *value = bpf_map_lookup_elem(&sample_cells, &cell);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Answers with the limit, counts in cell 0, and sends the limit through the ring. */
SEC("tc")
int sample_answer(struct __sk_buff *packet)
{
	__u64 *record = bpf_ringbuf_reserve(&sample_ring, sizeof(*record), 0);

	if (record) {
		*record = sample_limit;
		bpf_ringbuf_submit(record, 0);
	}
	bump(0);
	return sample_limit + sample_flag;
}

SEC("cgroup/connect4")
int sample_allow(struct bpf_sock_addr *call)
{
	bump(1);
	return 1;
}

SEC("cgroup/connect4")
int sample_deny(struct bpf_sock_addr *call)
{
	bump(2);
	return 0;
}

SEC("cgroup/bind4")
int sample_bind(struct bpf_sock_addr *call)
{
	return 1;
}

/* A section no libbpf knows: its type is set by the loader. */
SEC("sample/unknown")
int sample_unknown(struct bpf_sock_addr *call)
{
	return 1;
}

SEC("tp_btf/cgroup_mkdir")
int sample_mkdir(__u64 *arguments)
{
	bump(3);
	return 0;
}

SEC("cgroup/connect4")
int sample_rejected(struct bpf_sock_addr *call)
{
	return *(volatile int *)(unsigned long)call->user_family;
}

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} sample_sockets SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct udp_sock;
struct sock;

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	__u64 *value;
};

#pragma clang attribute pop

/* A byte for each UDP socket. */
SEC("iter/udp")
int sample_udp(struct bpf_iter__udp *ctx)
{
	if (ctx->udp_sk)
		bpf_seq_write(ctx->meta->seq, "u", 1);
	return 0;
}

/* What is kept with each socket. */
SEC("iter/bpf_sk_storage_map")
int sample_storage(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	__u64 *found = ctx->value;

	if (found)
		bpf_seq_write(ctx->meta->seq, found, sizeof(*found));
	return 0;
}

char _license[] SEC("license") = "GPL";
