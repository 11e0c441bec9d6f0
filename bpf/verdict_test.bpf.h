/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What tests and the programs of verdict_test.bpf.c and name_test.bpf.c say to each other. A packet is 16 bytes of
 * anything (an Ethernet header is expected there) and then questions, back to back; the program writes the verdict into
 * each. To verdict_test up to CGN_TEST_MAX struct cgn_test; to name_test up to CGN_TEST_NAMES_MAX of these with a
 * struct cgn_name behind each, which is the target's afterwards if a rule rewrites. Not part of the ABI.
 */
#ifndef CGNETD_VERDICT_TEST_BPF_H
#define CGNETD_VERDICT_TEST_BPF_H

#include <linux/types.h>

#define CGN_TEST_OFFSET 16
#define CGN_TEST_MAX 32
#define CGN_TEST_NAMES_MAX 12

#define CGN_TEST_V6_ONLY (1u << 0) /* the socket takes IPv6 only */
#define CGN_TEST_RAW (1u << 1) /* with CGN_HOOK_SOCKET: SOCK_RAW */
#define CGN_TEST_INSIDE (1u << 2) /* the task is below the managed root: without a label it is denied */
#define CGN_TEST_ACCOUNT (1u << 3) /* count, and make events, as a hook does */
#define CGN_TEST_PLAIN                                                                                                 \
	(1u << 4) /* judge connect and sendmsg plainly too: the rule is CGN_RULE_CORRUPT if that differs */

/* As the Flow of datapath: addresses are normalised already. */
struct cgn_test {
	__u64 task_id; /* cgroup ids; socket_id may be the same or 0 */
	__u64 socket_id;
	__u64 address[2]; /* as cgn_flow_key.address */
	__u16 port;
	__u16 protocol; /* IPPROTO_* */
	__u8 hook; /* enum cgn_hook */
	__u8 family; /* CGN_FAMILY_* */
	__u8 flags; /* CGN_TEST_* */
	__u8 proto; /* enum cgn_proto; for CGN_HOOK_CREATE enum cgn_socket_type */

	/* The verdict. */
	__u8 judged; /* 0: nothing governs the call, and the rest is 0 */
	__u8 denied;
	__u8 errno_;
	__u8 shadow_denied;
	__u8 by_socket;
	__u8 rewritten;
	__u8 shadow_rewritten;
	__u8 reason; /* enum cgn_reason */
	__u32 rule;
	__u32 shadow_rule;
	__u64 target[2]; /* if rewritten, but not to a name */
	__u16 target_port;
	__u8 target_family;
	__u8 reserved[5];
};

_Static_assert(sizeof(struct cgn_test) == 80, "cgn_test");

#endif
