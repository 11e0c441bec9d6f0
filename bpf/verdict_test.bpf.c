// SPDX-License-Identifier: GPL-2.0-only
/*
 * The verdict functions of the hooks, for BPF_PROG_TEST_RUN: kernels have none for the hooks themselves. Never
 * attached. Must not judge in any way of its own.
 */
#define CGN_DIRECTIONS (1 << CGN_DIR_EGRESS | 1 << CGN_DIR_BIND | 1 << CGN_DIR_SOCKET)
#include "test_call.bpf.h"
#include "plain.bpf.h"

/* The plain verdict as it has to be: that of the whole judgement where that is an allow that leaves only a count. */
static __always_inline __u64 cgn_test_expected(const struct cgn_call *call)
{
	if (call->standing != CGN_STANDING_GOVERNED || CGN_CELL_ACTION(call->rule) != CGN_ACTION_ALLOW ||
	    CGN_CELL_FLAGS(call->rule) & CGN_RULE_EFFECT || CGN_CELL_ID(call->shadow) != CGN_CELL_ID(call->rule) ||
	    cgn_is_event(call))
		return CGN_PLAIN_OTHER;
	return CGN_PLAIN(cgn_counter_place(call->rule_count, call->rule, CGN_COUNT_ENFORCED));
}

/* The socket's cgroup is not asked plainly. */
static __always_inline bool cgn_test_agrees(const struct cgn_call *call)
{
	struct cgn_question question = call->question;

	question.rule_count = question.rules = 0;
	return call->judge_id || cgn_judge_plainly(&question, call->task_id) == cgn_test_expected(call);
}

__weak __noinline int cgn_test_one(struct cgn_test *test)
{
	struct cgn_call call;

	if (!test)
		return 0;
	cgn_test_call(&call, test);
	if (!cgn_test_identify(&call, test))
		return 0;
	cgn_decide_bind(&call);
	if (test->flags & CGN_TEST_PLAIN && call.hook <= CGN_HOOK_SENDMSG && !cgn_test_agrees(&call))
		call.rule = call.shadow = CGN_CELL_CORRUPT;
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
