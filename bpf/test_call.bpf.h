/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a question of a test to a call, and from a verdict to the answer. Must not judge in any way of its own.
 */
#ifndef CGNETD_TEST_CALL_BPF_H
#define CGNETD_TEST_CALL_BPF_H

#define CGN_WITHOUT_TASK /* programs of this type are not told who calls */
#include "account.bpf.h"
#include "decide.bpf.h"
#include "verdict_test.bpf.h"

#define TC_ACT_OK 0

/* The question at hand: there is no room on the stack beside everything else. Of these objects alone. */
struct cgn_test_room {
	struct cgn_test test;
	struct cgn_name name;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cgn_test_room);
} cgn_test_rooms SEC(".maps");

static __always_inline struct cgn_test_room *cgn_test_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cgn_test_rooms, &zero);
}

static __always_inline __u8 cgn_test_direction(const struct cgn_test *test)
{
	if (test->family == CGN_FAMILY_UNIX)
		return CGN_DIR_UNIX;
	if (test->hook == CGN_HOOK_CREATE)
		return CGN_DIR_SOCKET;
	return test->hook == CGN_HOOK_BIND || test->hook == CGN_HOOK_POST_BIND ? CGN_DIR_BIND : CGN_DIR_EGRESS;
}

static __always_inline __u8 cgn_test_context(const struct cgn_test *test)
{
	if (test->hook == CGN_HOOK_CREATE)
		return test->proto + (test->family == CGN_FAMILY_V6 ? CGN_TYPE_COUNT : 0);
	if (test->hook == CGN_HOOK_SOCKET && test->flags & CGN_TEST_RAW)
		return CGN_OPAQUE_RAW;
	return test->proto + (test->hook == CGN_HOOK_SENDMSG ? CGN_PROTO_COUNT : 0);
}

static __always_inline void cgn_test_call(struct cgn_call *call, const struct cgn_test *test)
{
	__builtin_memset(call, 0, sizeof(*call));
	call->address[0] = test->address[0];
	call->address[1] = test->address[1];
	call->task_id = test->task_id;
	call->socket_id = test->socket_id;
	call->port = test->port;
	call->protocol = test->protocol;
	call->hook = test->hook;
	call->family = test->family;
	call->direction = cgn_test_direction(test);
	call->context = cgn_test_context(test);
	call->both_families = call->direction == CGN_DIR_BIND && test->family == CGN_FAMILY_V6 && !test->address[0] &&
			      !test->address[1] && !(test->flags & CGN_TEST_V6_ONLY);
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

static __always_inline void cgn_test_tell(struct cgn_test *test, const struct cgn_call *call)
{
	test->judged = call->rule != 0;
	test->denied = cgn_denies(call->rule);
	test->errno_ = test->denied ? cgn_errno(call->rule) : 0;
	test->shadow_denied = cgn_denies(call->shadow);
	test->by_socket = call->by_socket;
	test->rewritten = cgn_rewrites(call->rule);
	test->shadow_rewritten = cgn_rewrites(call->shadow);
	test->reason = call->reason;
	test->rule = CGN_CELL_ID(call->rule);
	test->shadow_rule = CGN_CELL_ID(call->shadow);
	if (!test->rewritten || call->direction == CGN_DIR_UNIX)
		return;
	test->target[0] = call->target[0];
	test->target[1] = call->target[1];
	test->target_port = call->target_port;
	test->target_family = call->target_family;
}

static __always_inline bool cgn_test_read(struct __sk_buff *skb, __u32 offset, struct cgn_test *test)
{
	if (offset + sizeof(*test) > skb->len || bpf_skb_load_bytes(skb, offset, test, sizeof(*test)))
		return false;
	__builtin_memset((void *)test + offsetof(struct cgn_test, judged), 0,
			 sizeof(*test) - offsetof(struct cgn_test, judged));
	return true;
}

#endif
