/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Plain verdicts: an allow that leaves nothing but a count, on a call of a task on a socket of its own cgroup. Most
 * are, and are found here by the functions that every verdict is found by, without putting a call together and copying
 * a label: what does not lie in the caches between two system calls is what a verdict waits for. Must not know of hook
 * contexts, nor deny: what is not plain is judged as a whole.
 */
#ifndef CGNETD_PLAIN_BPF_H
#define CGNETD_PLAIN_BPF_H

#include "verdict.bpf.h"

/* What a policy is asked about. No padding, as in struct cgn_call. */
struct cgn_question {
	__u64 address[2]; /* as struct cgn_call has all of these */
	__u32 slot;
	__u32 generation;
	__u16 port;
	__u8 hook;
	__u8 family;
	__u8 context;
	__u8 reserved[3];
};

_Static_assert(sizeof(struct cgn_question) == 32, "cgn_question has padding");

#define CGN_PLAIN_PASS 0ull /* the policy decides nothing here */
#define CGN_PLAIN_OTHER 1ull /* it decides, but not plainly */
#define CGN_PLAIN(counter) (2 + (__u64)(counter)) /* an allow, and where it is counted */
#define CGN_PLAIN_COUNTER(plain) ((__u32)((plain)-2))
#define CGN_IS_PLAIN(plain) ((plain) > CGN_PLAIN_OTHER)

/* Whether a rule lets pass, with no event and no effect, in a policy that enforces. */
static __always_inline bool cgn_is_plain(__u64 rule)
{
	return CGN_CELL_ACTION(rule) == CGN_ACTION_ALLOW && !CGN_CELL_FLAGS(rule) && !(rule & CGN_CELL_AUDIT);
}

/* What one policy says of an egress call, CGN_PLAIN*; or CGN_NO_POLICY. */
__weak __noinline __u64 cgn_ask_plainly(const struct cgn_question *question, __u32 policy)
{
	struct cgn_call call = {};
	__u64 rule;

	if (!question)
		return CGN_PLAIN_OTHER;
	call.address[0] = question->address[0];
	call.address[1] = question->address[1];
	call.slot = question->slot;
	call.generation = question->generation;
	call.port = question->port;
	call.hook = question->hook;
	call.family = question->family;
	call.direction = CGN_DIR_EGRESS;
	call.context = question->context;
	rule = cgn_policy_says(&call, policy, NULL);
	if (!rule)
		return CGN_PLAIN_PASS;
	if (!cgn_is_plain(rule))
		return CGN_PLAIN_OTHER;
	return CGN_PLAIN(cgn_counter_place(call.rule_count, rule, CGN_COUNT_ENFORCED));
}

/*
 * The verdict of a cgroup, CGN_PLAIN_OTHER or CGN_PLAIN(). The label is read where it lies: if it is still there when
 * all was read it was that cgroup's all the time, as in cgn_stand().
 */
static __always_inline __u64 cgn_judge_plainly(const struct cgn_question *question, __u64 cgroup_id)
{
	struct cgn_entry *entry = bpf_map_lookup_elem(&cgn_labels, &cgroup_id);
	const volatile struct cgn_label *label;
	__u64 said = CGN_PLAIN_PASS;
	__u32 governing;

	if (!entry)
		return CGN_PLAIN_OTHER;
	label = &entry->slot[question->slot & (CGN_SLOTS - 1)];
	governing = label->governing;
	if (label->generation != question->generation || !governing || governing > CGN_CHAIN_MAX || label->flags)
		return CGN_PLAIN_OTHER;
	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < governing && said == CGN_PLAIN_PASS; i++)
		said = cgn_ask_plainly(question, label->policy[i]);
	if (said == CGN_PLAIN_PASS)
		said = cgn_ask_plainly(question, CGN_NO_POLICY);
	barrier();
	return bpf_map_lookup_elem(&cgn_labels, &cgroup_id) == entry ? said : CGN_PLAIN_OTHER;
}

#endif
