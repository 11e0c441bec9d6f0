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

#define CGN_PLAIN_OTHER 0ull /* no allow that leaves nothing but a count */
#define CGN_PLAIN(counter) (1 + (__u64)(counter)) /* one, and where it is counted */
#define CGN_PLAIN_COUNTER(plain) ((__u32)((plain)-1))

/* Whether a rule lets pass, with no event and no effect, in a policy that enforces. */
static __always_inline bool cgn_is_plain(__u64 rule)
{
	return CGN_CELL_ACTION(rule) == CGN_ACTION_ALLOW && !CGN_CELL_FLAGS(rule) && !(rule & CGN_CELL_AUDIT);
}

/*
 * The verdict of a cgroup, CGN_PLAIN() or CGN_PLAIN_OTHER. The label is read where it lies: if it is still there when
 * all was read it was that cgroup's all the time, as in cgn_stand().
 */
static __always_inline __u64 cgn_judge_plainly(struct cgn_question *question, __u64 cgroup_id)
{
	struct cgn_entry *entry = bpf_map_lookup_elem(&cgn_labels, &cgroup_id);
	const volatile struct cgn_label *label;
	__u32 governing;
	__u64 rule = 0;

	if (!entry)
		return CGN_PLAIN_OTHER;
	label = &entry->slot[question->slot & (CGN_SLOTS - 1)];
	governing = label->governing;
	if (label->generation != question->generation || !governing || label->flags)
		return CGN_PLAIN_OTHER;
	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < governing && !rule; i++)
		rule = cgn_ask_policy(question, label->policy[i], NULL);
	rule = rule ?: cgn_ask_policy(question, CGN_NO_POLICY, NULL);
	barrier();
	if (!cgn_is_plain(rule) || label->governing > CGN_CHAIN_MAX ||
	    bpf_map_lookup_elem(&cgn_labels, &cgroup_id) != entry)
		return CGN_PLAIN_OTHER;
	return CGN_PLAIN(cgn_counter_place(question->rule_count, rule, CGN_COUNT_ENFORCED));
}

#endif
