// SPDX-License-Identifier: GPL-2.0-only
/*
 * verdict_test.bpf.c for the names of UNIX sockets. Never attached. Must not judge in any way of its own.
 */
#define CGN_DIRECTIONS (1 << CGN_DIR_UNIX)
#include "test_call.bpf.h"

__weak __noinline int cgn_test_one(struct cgn_test *test, struct cgn_name *name)
{
	struct cgn_call call;

	if (!test || !name)
		return 0;
	cgn_test_call(&call, test);
	if (!cgn_test_identify(&call, test))
		return 0;
	cgn_decide(&call, name);
	cgn_test_tell(test, &call);
	return 0;
}

SEC("tc")
int name_test(struct __sk_buff *skb)
{
	struct cgn_test_room *room = cgn_test_room();
	__u32 offset = CGN_TEST_OFFSET;

	if (!room)
		return TC_ACT_OK;
	for (__u32 i = 0; i < CGN_TEST_NAMES_MAX; i++) {
		if (!cgn_test_read(skb, offset, &room->test) ||
		    bpf_skb_load_bytes(skb, offset + sizeof(room->test), &room->name, sizeof(room->name)))
			break;
		cgn_test_one(&room->test, &room->name);
		bpf_skb_store_bytes(skb, offset, &room->test, sizeof(room->test), 0);
		bpf_skb_store_bytes(skb, offset + sizeof(room->test), &room->name, sizeof(room->name), 0);
		offset += sizeof(room->test) + sizeof(room->name);
	}
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
