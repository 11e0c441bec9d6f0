// SPDX-License-Identifier: GPL-2.0-only
/*
 * The verdict functions of the hooks, for BPF_PROG_TEST_RUN: kernels have none for the hooks themselves. Never
 * attached. Must not judge in any way of its own.
 */
#define CGN_WITHOUT_TASK /* programs of this type are not told who calls */
#include "account.bpf.h"
#include "verdict_test.bpf.h"

#define TC_ACT_OK 0

static __always_inline void cgn_test_call(struct cgn_call *call, const struct cgn_test *test)
{
	bool binds = test->hook == CGN_HOOK_BIND || test->hook == CGN_HOOK_POST_BIND;

	__builtin_memset(call, 0, sizeof(*call));
	call->address[0] = test->address[0];
	call->address[1] = test->address[1];
	call->task_id = test->task_id;
	call->socket_id = test->socket_id;
	call->port = test->port;
	call->protocol = test->protocol;
	call->hook = test->hook;
	call->family = test->family;
	call->direction = binds ? CGN_DIR_BIND : CGN_DIR_EGRESS;
	call->context = test->proto + (test->hook == CGN_HOOK_SENDMSG ? CGN_PROTO_COUNT : 0);
	if (test->hook == CGN_HOOK_SOCKET && test->flags & CGN_TEST_RAW)
		call->context = CGN_OPAQUE_RAW;
	call->both_families = binds && test->family == 6 && !test->address[0] && !test->address[1] &&
			      !(test->flags & CGN_TEST_V6_ONLY);
}

/* Both identities, by their ids alone. Returns whether anything governs the call. */
static __always_inline bool cgn_test_identify(struct cgn_call *call, const struct cgn_test *test)
{
	struct cgn_control *control;
	struct cgn_label label;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(&cgn_control, &zero);
	if (!control)
		return false;
	call->slot = control->active & (CGN_SLOTS - 1);
	call->generation = control->generation[call->slot];
	if (!call->generation)
		return false;
	call->standing = cgn_stand(test->task_id, call->slot, call->generation, &call->label);
	if (call->standing == CGN_STANDING_ABSENT && test->flags & CGN_TEST_INSIDE)
		call->standing = CGN_STANDING_UNLABELLED;
	if (test->socket_id && test->socket_id != test->task_id &&
	    cgn_stand(test->socket_id, call->slot, call->generation, &label) == CGN_STANDING_GOVERNED)
		call->judge_id = test->socket_id;
	return call->standing >= CGN_STANDING_GOVERNED || call->judge_id;
}

__noinline int cgn_test_one(struct cgn_test *test)
{
	struct cgn_call call;

	if (!test)
		return 0;
	cgn_test_call(&call, test);
	if (!cgn_test_identify(&call, test))
		return 0;
	cgn_decide(&call);
	test->judged = call.rule != 0;
	test->denied = cgn_denies(call.rule);
	test->errno_ = test->denied ? cgn_errno(call.rule) : 0;
	test->shadow_denied = cgn_denies(call.shadow);
	test->by_socket = call.by_socket;
	test->rule = CGN_CELL_ID(call.rule);
	test->shadow_rule = CGN_CELL_ID(call.shadow);
	if (!(test->flags & CGN_TEST_ACCOUNT))
		return 0;
	cgn_count(&call);
	if (cgn_is_event(&call))
		cgn_report(&call);
	return 0;
}

SEC("tc")
int verdict_test(struct __sk_buff *skb)
{
	struct cgn_test test;

	for (__u32 i = 0; i < CGN_TEST_MAX; i++) {
		__u32 offset = CGN_TEST_OFFSET + i * sizeof(test);

		if (offset + sizeof(test) > skb->len || bpf_skb_load_bytes(skb, offset, &test, sizeof(test)))
			break;
		__builtin_memset((void *)&test + offsetof(struct cgn_test, judged), 0,
				 sizeof(test) - offsetof(struct cgn_test, judged));
		cgn_test_one(&test);
		bpf_skb_store_bytes(skb, offset, &test, sizeof(test), 0);
	}
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
