// SPDX-License-Identifier: GPL-2.0-only
/*
 * The verdict functions of the hooks, for BPF_PROG_TEST_RUN: kernels have none for the hooks themselves. Never
 * attached. Must not judge in any way of its own.
 */
#define CGN_DIRECTIONS (1 << CGN_DIR_EGRESS | 1 << CGN_DIR_BIND | 1 << CGN_DIR_SOCKET)
#include "test_call.bpf.h"

__weak __noinline int cgn_test_one(struct cgn_test *test)
{
	struct cgn_call call;

	if (!test)
		return 0;
	cgn_test_call(&call, test);
	if (!cgn_test_identify(&call, test))
		return 0;
	cgn_decide_bind(&call);
	cgn_test_tell(test, &call);
	if (!(test->flags & CGN_TEST_ACCOUNT))
		return 0;
	cgn_count(&call);
	if (cgn_is_event(&call))
		cgn_report(&call, NULL);
	return 0;
}

SEC("tc")
int verdict_test(struct __sk_buff *skb)
{
	struct cgn_test_room *room = cgn_test_room();
	__u32 offset = CGN_TEST_OFFSET;

	if (!room)
		return TC_ACT_OK;
	for (__u32 i = 0; i < CGN_TEST_MAX; i++) {
		if (!cgn_test_read(skb, offset, &room->test))
			break;
		cgn_test_one(&room->test);
		bpf_skb_store_bytes(skb, offset, &room->test, sizeof(room->test), 0);
		offset += sizeof(room->test);
	}
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
