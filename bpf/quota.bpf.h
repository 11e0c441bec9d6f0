/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who has how much of cgn_flows, and whether there is room for one more. Must not know what a flow tells.
 *
 * A flow counts for its cgroup, for those above the calling task (which is whose doing it is) and for everybody: who
 * may make cgroups of his own gets no more room by them. What a cgroup is below is noted with its count: the daemon,
 * which counts again what it leaves, is to know it also when the cgroup is gone.
 */
#ifndef CGNETD_QUOTA_BPF_H
#define CGNETD_QUOTA_BPF_H

#include "call.bpf.h"

#define CGN_FIRST_FLOWS 4 /* of a cgroup: there is room for these when others have taken theirs */
#define CGN_CGROUP_SHARE 32 /* a cgroup gets one of so many parts of cgn_flows, and as much for collected flows */
#define CGN_SUBTREE_SHARE 3 /* a subtree leaves the others one flow for every so many of its own */

struct bpf_map___limits {
	__u32 max_entries;
} __attribute__((preserve_access_index));

/* The level of the managed root. */
static __always_inline __u32 cgn_quota_root(void)
{
	struct cgn_control *control;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(&cgn_control, &zero);
	return control ? control->root_level : 0;
}

/* The cgroup that the calling task is in or below, at a level; 0: there is none. */
static __always_inline __u64 cgn_quota_owner(__u32 level)
{
#ifdef CGN_WITHOUT_TASK
	return 0;
#else
	return bpf_get_current_ancestor_cgroup_id(level);
#endif
}

static __always_inline __u64 cgn_quota_flows(__u64 cgroup_id)
{
	struct cgn_quota *quota = bpf_map_lookup_elem(&cgn_quotas, &cgroup_id);

	return quota ? quota->flows : 0;
}

/* The flows of all subtrees that a cgroup is in, its own among them. */
CGN_STATIC_NOINLINE __u64 cgn_quota_around(__u64 cgroup_id)
{
	__u64 flows = cgn_quota_flows(cgroup_id), owner;
	__u32 root = cgn_quota_root();

	for (__u32 level = 1; level <= CGN_QUOTA_LEVELS; level++) {
		owner = cgn_quota_owner(root + level);
		if (!owner || owner == cgroup_id)
			break;
		flows += cgn_quota_flows(owner);
	}
	return flows;
}

/*
 * Whether there is room for one more flow of a cgroup.
 *
 * A subtree may have at most CGN_SUBTREE_SHARE times what the subtree around it has left, and so on up to the table:
 * whoever takes all that he can leaves a part to those beside him, at each level. Single destinations leave room for
 * the first ones of other cgroups, and all of them for collected flows, where calls go that have no other place.
 */
static __always_inline bool cgn_quota_allows(__u64 cgroup_id, bool collected)
{
	__u64 max = ((struct bpf_map___limits *)&cgn_flows)->max_entries, mine = cgn_quota_flows(cgroup_id);
	__u64 taken = cgn_quota_flows(CGN_QUOTA_EVERYBODY) + cgn_quota_around(cgroup_id) / CGN_SUBTREE_SHARE;

	if (collected)
		return mine < 2 * max / CGN_CGROUP_SHARE && taken < max;
	return mine < max / CGN_CGROUP_SHARE && taken < (mine < CGN_FIRST_FLOWS ? max / 8 * 7 : max / 4 * 3);
}

/* What a new quota begins with. */
static const struct cgn_quota cgn_no_flows;

/*
 * One more flow of a cgroup and what is below it. Where there is no room for the count, nothing is held back by it. The
 * daemon may take a count out under our feet, and its place may be another cgroup's by now: the next flow of that one
 * mends what it is below, and the daemon the number.
 */
static __always_inline void cgn_quota_add(__u64 cgroup_id, __u64 parent_id)
{
	struct cgn_quota *quota = bpf_map_lookup_elem(&cgn_quotas, &cgroup_id);

	if (!quota) {
		bpf_map_update_elem(&cgn_quotas, &cgroup_id, &cgn_no_flows, BPF_NOEXIST);
		quota = bpf_map_lookup_elem(&cgn_quotas, &cgroup_id);
	}
	if (!quota)
		return;
	if (quota->parent_id != parent_id)
		quota->parent_id = parent_id;
	__sync_fetch_and_add(&quota->flows, 1);
}

/* Counts a flow that was made. */
CGN_STATIC_NOINLINE void cgn_quota_charge(__u64 cgroup_id)
{
	__u64 parent_id = CGN_QUOTA_EVERYBODY, owner;
	__u32 root = cgn_quota_root();

	cgn_quota_add(CGN_QUOTA_EVERYBODY, CGN_QUOTA_EVERYBODY);
	for (__u32 level = 1; level <= CGN_QUOTA_LEVELS; level++) {
		owner = cgn_quota_owner(root + level);
		if (!owner || owner == cgroup_id)
			break;
		cgn_quota_add(owner, parent_id);
		parent_id = owner;
	}
	cgn_quota_add(cgroup_id, parent_id);
}

#endif
