/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The few members of kernel structures that the programs read, found by name in the running kernel's BTF (CO-RE).
 * Layout and order here mean nothing. Must not know of policies.
 */
#ifndef CGNETD_KERNEL_TYPES_BPF_H
#define CGNETD_KERNEL_TYPES_BPF_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	const char *name;
	__u64 id;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct files_struct;

struct task_struct {
	struct css_set *cgroups;
	struct files_struct *files;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct in6_addr___kernel { /* the uapi headers have one too */
	union {
		__be32 u6_addr32[4];
	} in6_u;
};

struct sock;

struct sock_common {
	struct sock *skc_listener;
	__be32 skc_daddr;
	struct in6_addr___kernel skc_v6_daddr;
	__be16 skc_dport;
	volatile unsigned char skc_state;
	unsigned char skc_ipv6only : 1;
};

struct sock {
	struct sock_common __sk_common;
	struct sock_cgroup_data sk_cgrp_data;
};

struct bpf_sock_ops_kern {
	struct sock *sk;
};

struct inet_sock {
	__be32 inet_saddr;
};

#pragma clang attribute pop

/* The address of the kernel's socket as a number: bpf_probe_read_kernel() reads the spilled pointer. */
static __always_inline struct sock *cgn_kernel_socket(void *sk)
{
	void *volatile spilled = sk;
	struct sock *address = NULL;

	bpf_probe_read_kernel(&address, sizeof(address), (const void *)&spilled);
	return address;
}

#endif
