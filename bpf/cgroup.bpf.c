// SPDX-License-Identifier: GPL-2.0-only
/*
 * New cgroups get their labels before any process can be in them, in every generation that their parent has a label of;
 * removed ones lose theirs. Must not know what a policy says.
 *
 * The tracepoints fire for every hierarchy, and ids are unique only within one: all but the default hierarchy is
 * ignored.
 */
#include "inherit.bpf.h"
#include "kernel_types.bpf.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define CGN_EBADMSG 74 /* the image cannot be right */
#define CGN_ESTALE 116 /* the parent has no label of the generation in force */

/*
 * Copies the parent's entry. As in cgn_stand(): an element that is still in its place after it was read was the
 * parent's all the time.
 */
static __always_inline bool cgn_copy_parent(__u64 parent_id)
{
	for (int attempt = 0; attempt < 4; attempt++) {
		struct cgn_entry *entry = bpf_map_lookup_elem(&cgn_labels, &parent_id);

		if (!entry)
			return false;
		cgn_work.parent = *entry;
		barrier();
		if (bpf_map_lookup_elem(&cgn_labels, &parent_id) == entry)
			return true;
	}
	return false;
}

/* Labels the cgroup in every slot; returns 0 or -errno. */
static __always_inline int cgn_label_child(const struct cgn_control *control, __u64 cgroup_id, __u32 active)
{
	int error = 0;

	__builtin_memset(&cgn_work.child, 0, sizeof(cgn_work.child));
	for (__u32 slot = 0; slot < CGN_SLOTS; slot++) {
		__u32 generation = control->generation[slot];

		if (!generation)
			continue;
		if (cgn_work.parent.slot[slot].generation != generation)
			error = slot == active ? -CGN_ESTALE : error;
		else if (!cgn_derive(slot, generation))
			error = -CGN_EBADMSG;
	}
	return bpf_map_update_elem(&cgn_labels, &cgroup_id, &cgn_work.child, BPF_ANY) ?: error;
}

static __always_inline void cgn_announce(__u64 cgroup_id, __u64 parent_id, int error)
{
	struct cgn_cgroup_record *record = bpf_ringbuf_reserve(&cgn_events, sizeof(*record), 0);

	if (!record) {
		cgn_stat_add(CGN_STAT_RING_FULL);
		return;
	}
	record->type = CGN_RECORD_CGROUP;
	record->error = error;
	record->cgroup_id = cgroup_id;
	record->parent_id = parent_id;
	__builtin_memcpy(record->name, cgn_work.name, sizeof(record->name));
	bpf_ringbuf_submit(record, 0);
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_mkdir, struct cgroup *cgroup, const char *path)
{
	struct cgn_control *control;
	const struct cgn_label *label;
	__u64 cgroup_id, parent_id;
	__u32 zero = 0, active;
	int error;

	if (cgroup->root->hierarchy_id)
		return 0;
	control = bpf_map_lookup_elem(&cgn_control, &zero);
	if (!control)
		return 0;
	parent_id = BPF_CORE_READ(cgroup, self.parent, cgroup, kn, id);
	if (!cgn_copy_parent(parent_id))
		return 0;
	cgroup_id = cgroup->kn->id;
	active = control->active & (CGN_SLOTS - 1);
	__builtin_memset(cgn_work.name, 0, sizeof(cgn_work.name));
	bpf_probe_read_kernel_str(cgn_work.name, sizeof(cgn_work.name), cgroup->kn->name);
	error = cgn_label_child(control, cgroup_id, active);
	if (error)
		cgn_stat_add(CGN_STAT_LABEL_FAILED);
	label = &cgn_work.child.slot[active];
	if (error || label->governing || label->flags)
		cgn_announce(cgroup_id, parent_id, error);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_rmdir, struct cgroup *cgroup, const char *path)
{
	__u64 cgroup_id;

	if (cgroup->root->hierarchy_id)
		return 0;
	cgroup_id = cgroup->kn->id;
	bpf_map_delete_elem(&cgn_labels, &cgroup_id);
	return 0;
}

char _license[] SEC("license") = "GPL";
