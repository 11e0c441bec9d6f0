/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The socket that a task calls getpeername() on, where a context shows its peer alone, and what is kept with it. Read
 * without a lock: what is found is a guess until the caller has compared it with what it knows. Must not know of names.
 */
#ifndef CGNETD_CALLER_BPF_H
#define CGNETD_CALLER_BPF_H

#include "identity.bpf.h"

#define CGN_STORAGES_MAX 16 /* of one socket, of whatever program */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs___x86 {
	unsigned long di;
};

struct pt_regs___arm64 {
	__u64 regs[31];
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct socket {
	struct sock *sk;
};

struct file {
	struct socket *private_data;
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct bpf_local_storage {
	struct hlist_head list;
};

struct bpf_map___storage {
	__u32 id;
};

struct bpf_local_storage_map {
	struct bpf_map___storage map;
};

struct bpf_local_storage_data {
	struct bpf_local_storage_map *smap;
	__u8 data[];
};

struct bpf_local_storage_elem {
	struct hlist_node snode;
	struct bpf_local_storage_data sdata;
};

struct sock___storage {
	struct bpf_local_storage *sk_bpf_storage;
};

#pragma clang attribute pop

/* The first argument of the system call that the task makes. */
static __always_inline __u64 cgn_first_argument(void)
{
	void *regs = (void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
	__u64 argument = ~0ull;

	if (bpf_core_field_exists(struct pt_regs___x86, di))
		argument = BPF_CORE_READ((struct pt_regs___x86 *)regs, di);
	else if (bpf_core_field_exists(struct pt_regs___arm64, regs))
		argument = BPF_CORE_READ((struct pt_regs___arm64 *)regs, regs[0]);
	return argument;
}

/* The socket behind the descriptor that the system call is given; anything, if it is none. */
static __always_inline struct sock *cgn_called_socket(void)
{
	struct fdtable *table = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), files, fdt);
	__u32 fd = cgn_first_argument();
	struct file *file = NULL;

	if (fd < BPF_CORE_READ(table, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file), BPF_CORE_READ(table, fd) + fd);
	return BPF_CORE_READ(file, private_data, sk);
}

/* The value that a map of socket storage keeps with a socket, as an address to be read from; NULL: none. */
static __always_inline void *cgn_find_storage(struct sock *sk, void *map)
{
	struct hlist_node *node = BPF_CORE_READ((struct sock___storage *)sk, sk_bpf_storage, list.first);
	void *wanted = cgn_kernel_socket(map);

	for (int i = 0; i < CGN_STORAGES_MAX && node; i++) {
		struct bpf_local_storage_elem *element =
			(void *)node - bpf_core_field_offset(struct bpf_local_storage_elem, snode);
		struct bpf_local_storage_map *storage = BPF_CORE_READ(element, sdata.smap);

		if (&storage->map == wanted)
			return &element->sdata.data;
		node = BPF_CORE_READ(node, next);
	}
	return NULL;
}

#endif
