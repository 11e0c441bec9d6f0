/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a verdict leaves behind: counters, and events aggregated by key. Must not know how the verdict came about.
 *
 * Programs of these types can be preempted, and several tasks write one flow at a time: numbers are changed by atomic
 * operations only; the description of the last call may be a mixture of two.
 */
#ifndef CGNETD_ACCOUNT_BPF_H
#define CGNETD_ACCOUNT_BPF_H

#include "quota.bpf.h"
#include "verdict.bpf.h"

#define CGN_CROWD_FLOWS 64 /* new ones in a window, of calls that differ only in where they went */

static __always_inline void cgn_counter_add(void *counters, __u32 rule_count, __u64 rule, __u32 kind)
{
	__u32 index = cgn_counter_place(rule_count, rule, kind);
	__u64 *counter = bpf_map_lookup_elem(counters, &index);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* Of a built-in rule that spoke before an image was opened. On a stack of its own. */
CGN_STATIC_NOINLINE bool cgn_open_late(struct cgn_call *call)
{
	struct cgn_reader reader;
	__u32 policy_count;

	return cgn_open_image(&call->question, &reader, &policy_count);
}

/* Counts the verdict by rule. Built-in rules can speak without an image having been opened. */
static __always_inline void cgn_count(struct cgn_call *call)
{
	__u32 slot = call->slot;
	void *counters;

	counters = bpf_map_lookup_elem(&cgn_counters, &slot);
	if (counters && (call->rule_count || cgn_open_late(call))) {
		cgn_counter_add(counters, call->rule_count, call->rule, CGN_COUNT_ENFORCED);
		if (CGN_CELL_ID(call->shadow) != CGN_CELL_ID(call->rule))
			cgn_counter_add(counters, call->rule_count, call->shadow, CGN_COUNT_SHADOW);
	}
	if (CGN_CELL_ID(call->rule) == CGN_RULE_UNLABELLED)
		cgn_stat_add(CGN_STAT_UNLABELLED);
	if (CGN_CELL_ID(call->rule) == CGN_RULE_CORRUPT)
		cgn_stat_add(CGN_STAT_CORRUPT);
}

/* The errno that a denied call gets. */
static __always_inline __u32 cgn_errno(__u64 rule)
{
	__u32 error = CGN_CELL_ERRNO(rule);

	return error && error < 256 ? error : CGN_EPERM;
}

/*
 * Whether the verdict makes an event: a logged rule decided, or would have decided otherwise, a built-in one denied, or
 * the call was denied for what no rule says.
 */
static __always_inline bool cgn_is_event(const struct cgn_call *call)
{
	bool denied = cgn_denies(call->rule);

	if (CGN_CELL_FLAGS(call->rule) & CGN_RULE_LOG || (denied && CGN_CELL_ID(call->rule) < CGN_RULE_FIRST) ||
	    call->reason)
		return true;
	return (denied != cgn_denies(call->shadow) || cgn_rewrites(call->rule) != cgn_rewrites(call->shadow)) &&
	       CGN_CELL_FLAGS(call->shadow) & CGN_RULE_LOG;
}

static __always_inline __u8 cgn_flow_flags(const struct cgn_call *call)
{
	return (cgn_denies(call->rule) ? CGN_FLOW_DENIED : 0) |
	       (cgn_denies(call->shadow) ? CGN_FLOW_SHADOW_DENIED : 0) | (call->by_socket ? CGN_FLOW_BY_SOCKET : 0) |
	       (cgn_rewrites(call->rule) ? CGN_FLOW_REWRITTEN : 0) |
	       (cgn_rewrites(call->shadow) ? CGN_FLOW_SHADOW_REWRITTEN : 0);
}

static __always_inline void cgn_flow_key_fill(struct cgn_flow_key *key, const struct cgn_call *call)
{
	key->generation = call->generation;
	key->rule = CGN_CELL_ID(call->rule);
	key->shadow_rule = CGN_CELL_ID(call->shadow);
	key->protocol = call->protocol;
	key->port = call->port;
	key->hook = call->hook;
	key->family = call->family;
	key->flags = cgn_flow_flags(call);
	key->errno_ = cgn_denies(call->rule) ? cgn_errno(call->rule) : 0;
	key->reason = call->reason;
	key->type = call->type;
	key->reserved = 0;
	key->cgroup_id = call->by_socket ? call->judge_id : call->task_id;
	key->address[0] = call->address[0];
	key->address[1] = call->address[1];
}

static __always_inline void cgn_flow_describe_task(struct cgn_flow_value *flow)
{
#ifndef CGN_WITHOUT_TASK
	flow->pid = bpf_get_current_pid_tgid() >> 32;
	flow->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(flow->comm, sizeof(flow->comm));
#endif
}

static __always_inline void cgn_flow_describe(struct cgn_flow_value *flow, const struct cgn_call *call,
					      const struct cgn_name *name, bool collected, __u64 now)
{
	flow->last_ns = now;
	flow->task_cgroup_id = call->task_id;
	flow->socket_cgroup_id = call->socket_id;
	flow->local_address[0] = call->local[0];
	flow->local_address[1] = call->local[1];
	flow->local_port = call->local_port;
	if (!collected && cgn_rewrites(call->rule) && call->direction < CGN_DIR_TABLES) {
		flow->new_address[0] = call->target[0];
		flow->new_address[1] = call->target[1];
		flow->new_port = call->target_port;
	}
	if (name) {
		flow->name_length = name->length;
		__builtin_memcpy(flow->name, name->bytes, sizeof(flow->name));
	}
	cgn_flow_describe_task(flow);
}

/* What a new flow begins with. Not on the stack, which has no room for it. */
static const struct cgn_flow_value cgn_new_flow;

/* Makes the flow of the key; NULL if there is no room for it. */
static __always_inline struct cgn_flow_value *cgn_flow_add(const struct cgn_flow_key *key)
{
	if (!cgn_quota_allows(key->cgroup_id, key->flags & CGN_FLOW_COLLECTED))
		return NULL;
	if (!bpf_map_update_elem(&cgn_flows, key, &cgn_new_flow, BPF_NOEXIST))
		cgn_quota_charge(key->cgroup_id);
	return bpf_map_lookup_elem(&cgn_flows, key);
}

/* Flows can wait in their map, the names of new cgroups nowhere: the last eighth of the ring is for these. */
static __always_inline bool cgn_has_room(void)
{
	__u64 size = bpf_ringbuf_query(&cgn_events, BPF_RB_RING_SIZE);

	return bpf_ringbuf_query(&cgn_events, BPF_RB_AVAIL_DATA) < size - size / 8;
}

/* Sends what no record has told yet. A record that does not fit stays in the map, and the daemon finds it there. */
static __always_inline void cgn_flow_emit(const struct cgn_flow_key *key, struct cgn_flow_value *flow)
{
	struct cgn_flow_record *record = NULL;
	__u64 reported, count;

	if (cgn_has_room())
		record = bpf_ringbuf_reserve(&cgn_events, sizeof(*record), 0);
	if (!record) {
		cgn_stat_add(CGN_STAT_RING_FULL);
		return;
	}
	reported = flow->reported;
	count = flow->count;
	if (count <= reported || __sync_val_compare_and_swap(&flow->reported, reported, count) != reported) {
		bpf_ringbuf_discard(record, 0);
		return;
	}
	record->type = CGN_RECORD_FLOW;
	record->reserved = 0;
	record->count = count - reported;
	record->key = *key;
	record->value = *flow;
	flow->first_ns = 0;
	bpf_ringbuf_submit(record, 0);
}

static __always_inline __u64 cgn_window_ns(void)
{
	struct cgn_control *control;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(&cgn_control, &zero);
	return control ? control->window_ns : 0;
}

/*
 * Whether one more destination of a crowd gets a flow of its own. The collected flow of the crowd counts them: since
 * new_address[0], new_address[1]. Those that come too late because another CPU began a window are of no account.
 */
static __always_inline bool cgn_crowd_admits(struct cgn_flow_value *collected, __u64 now)
{
	__u64 since = collected->new_address[0];

	if ((!since || (__s64)(now - since) >= (__s64)cgn_window_ns()) &&
	    __sync_val_compare_and_swap(&collected->new_address[0], since, now) == since)
		collected->new_address[1] = 0;
	return collected->new_address[1] < CGN_CROWD_FLOWS &&
	       __sync_fetch_and_add(&collected->new_address[1], 1) < CGN_CROWD_FLOWS;
}

static __always_inline void cgn_flow_key_collect(struct cgn_flow_key *key)
{
	key->flags |= CGN_FLOW_COLLECTED;
	key->address[0] = key->address[1] = key->port = 0;
}

/*
 * The flow of a key that has none yet. Room for "all the other destinations" is taken before room for this one: where
 * there is none, or enough of the crowd have flows of their own, that is where its calls go, and `key` is that flow's.
 */
static __always_inline struct cgn_flow_value *cgn_flow_new(struct cgn_flow_key *key, const struct cgn_call *call,
							   __u64 now)
{
	struct cgn_flow_value *flow, *collected;

	cgn_flow_key_collect(key);
	collected = bpf_map_lookup_elem(&cgn_flows, key) ?: cgn_flow_add(key);
	if (!collected)
		return NULL;
	collected->last_ns = now; /* in use: the daemon takes out what is idle */
	if (!cgn_crowd_admits(collected, now))
		return collected;
	key->flags &= ~CGN_FLOW_COLLECTED;
	key->address[0] = call->address[0];
	key->address[1] = call->address[1];
	key->port = call->port;
	flow = cgn_flow_add(key);
	if (flow)
		return flow;
	cgn_flow_key_collect(key);
	return collected;
}

/*
 * One more call of a flow; a record if it is the first one or the window has passed. Only one of many callers sends it.
 * `name` is that of a UNIX socket, else NULL.
 */
__weak __noinline int cgn_report(const struct cgn_call *call, const struct cgn_name *name)
{
	__u64 now = bpf_ktime_get_boot_ns(), start;
	struct cgn_flow_value *flow;
	struct cgn_flow_key key;

	if (!call)
		return 0;
	cgn_flow_key_fill(&key, call);
	flow = bpf_map_lookup_elem(&cgn_flows, &key) ?: cgn_flow_new(&key, call, now);
	if (!flow) {
		cgn_stat_add(CGN_STAT_LOST);
		return 0;
	}
	if (!flow->first_ns)
		flow->first_ns = now;
	cgn_flow_describe(flow, call, name, key.flags & CGN_FLOW_COLLECTED, now);
	__sync_fetch_and_add(&flow->count, 1);
	start = flow->window_start_ns;
	/* Signed: another CPU may have opened the window a moment after `now`. */
	if (start && (__s64)(now - start) < (__s64)cgn_window_ns())
		return 0;
	if (__sync_val_compare_and_swap(&flow->window_start_ns, start, now) == start)
		cgn_flow_emit(&key, flow);
	return 0;
}

#endif
