/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One socket call as a value, and the labels of the cgroups it is judged by. Must not know of images, hook contexts or
 * kernel structures.
 */
#ifndef CGNETD_CALL_BPF_H
#define CGNETD_CALL_BPF_H

#include "maps.bpf.h"
#include <linux/stddef.h>

#define CGN_MAPPED_PREFIX 0xffff00000000ull /* of the lower half of an IPv4-mapped address */

/* A function of its own in a program that takes any pointer, and may not be needed. */
#define CGN_STATIC_NOINLINE static __noinline __attribute__((unused))

/* How a cgroup stands in the generation in force. */
enum cgn_standing {
	CGN_STANDING_ABSENT = 0, /* no label of this generation */
	CGN_STANDING_QUIET = 1, /* nothing governs it */
	CGN_STANDING_GOVERNED = 2,
	CGN_STANDING_UNLABELLED = 3, /* absent, but below the managed root */
};

/*
 * One call as the verdict sees it, and the verdict. It begins with the question that policies are asked, which is a
 * structure of its own too. No padding: both are passed to global functions by address, and older verifiers want every
 * byte of them set.
 */
struct cgn_call {
	/* clang-format off */
	__struct_group(cgn_question, question, /* no attributes */,
		__u64 address[2]; /* as cgn_flow_key.address */
		__u32 slot;
		__u32 generation;
		__u32 rule_count; /* out: of the image, 0 before one was opened, as what follows */
		__u32 rules; /* out: offset of the rule cells */
		__u16 port;
		__u8 hook; /* enum cgn_hook */
		__u8 family; /* CGN_FAMILY_* */
		__u8 direction;
		__u8 context; /* of the direction; for CGN_HOOK_SOCKET the opaque class */
		__u16 unused;
	);
	/* clang-format on */
	__u64 local[2]; /* what the socket is bound to, as `address` */
	__u64 task_id; /* cgroup of the calling task */
	__u64 socket_id; /* cgroup of the socket */
	__u64 judge_id; /* the cgroup whose label judges for the socket; 0: the task's does, or none */
	__u64 rule; /* out: the enforced verdict */
	__u64 shadow; /* out: the same with audit policies taken as enforcing */
	__u64 target[2]; /* where a rewritten call goes on to, as `address`; out, but in if has_target */
	__u64 service; /* out: CGN_SERVICE_KEY of the service that the target is a backend of */
	__u32 epoch;
	__u16 local_port;
	__u16 protocol; /* IPPROTO_* */
	__u16 target_port;
	__u8 standing; /* of the task; `label` is its label if governed */
	__u8 both_families; /* a bind to [::] that takes the port on 0.0.0.0 too */
	__u8 by_socket; /* out: the socket's cgroup decided */
	__u8 target_family; /* out: CGN_FAMILY_*; 0: no target */
	__u8 has_target; /* the target is the socket's, of an earlier call: no other one is chosen */
	__u8 rule_at; /* out: the place in the chain of the policy that `rule` is of */
	__u8 shadow_at; /* out: likewise */
	__u8 reason; /* out: enum cgn_reason */
	__u8 type; /* SOCK_* for CGN_HOOK_CREATE, else 0 */
	__u8 reserved[5];
	struct cgn_label label;
};

_Static_assert(sizeof(struct cgn_question) == 5 * 8, "cgn_question has padding");
_Static_assert(sizeof(struct cgn_call) == 18 * 8 + sizeof(struct cgn_label), "cgn_call has padding");

/* The name of a UNIX socket: `length` bytes, and NULs behind. An abstract one begins with a NUL. */
struct cgn_name {
	__u32 length;
	char bytes[CGN_UNIX_NAME_BYTES];
};

/*
 * Copies the label of a cgroup if it is governed.
 *
 * An element of a hash map is reused for another key as soon as an update has replaced it, also under a reader's feet.
 * A label that is still in its place after it was read was that cgroup's all the time.
 */
static __always_inline enum cgn_standing cgn_stand(__u64 cgroup_id, __u32 slot, __u32 generation,
						   struct cgn_label *copy)
{
	for (int attempt = 0; attempt < 4; attempt++) {
		struct cgn_entry *entry = bpf_map_lookup_elem(&cgn_labels, &cgroup_id);
		enum cgn_standing standing = CGN_STANDING_GOVERNED;
		struct cgn_label *label;

		if (!entry)
			break;
		label = &entry->slot[slot & (CGN_SLOTS - 1)];
		if (label->generation != generation)
			standing = CGN_STANDING_ABSENT;
		else if (!label->governing && !label->flags)
			standing = CGN_STANDING_QUIET;
		else
			*copy = *label;
		barrier();
		if (bpf_map_lookup_elem(&cgn_labels, &cgroup_id) == entry)
			return standing;
	}
	return CGN_STANDING_ABSENT;
}

#endif
