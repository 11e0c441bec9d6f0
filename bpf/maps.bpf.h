/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every map of the data plane. Each object declares them all, so that a loader finds the pinned ones by name whatever
 * object it loads first. What the maps hold is said in cgnetd/abi.h.
 */
#ifndef CGNETD_MAPS_BPF_H
#define CGNETD_MAPS_BPF_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include "cgnetd/abi.h"

#define CGN_FLOWS_MAX 16384 /* a loader may choose another size */
#define CGN_QUOTA_LEVELS 4 /* of cgroups below the managed root whose subtrees are told apart */
#define CGN_QUOTAS_MAX (CGN_QUOTA_LEVELS * CGN_FLOWS_MAX) /* a loader may choose another size */
#define CGN_LABELS_MAX 65536 /* a loader may choose another size */
#define CGN_EVENTS_BYTES (1024 * 1024)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cgn_meta);
} cgn_meta SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cgn_control);
} cgn_control SEC(".maps");

/* Preallocated: a new cgroup's label is written with a raw spin lock held and interrupts off. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CGN_LABELS_MAX);
	__type(key, __u64);
	__type(value, struct cgn_entry);
} cgn_labels SEC(".maps");

/* BPF_F_INNER_MAP: each generation's array has its own size. */
struct cgn_cells {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__type(key, __u32);
	__type(value, __u64);
};

struct cgn_block {
	__u64 cell[CGN_BLOCK_CELLS];
};

struct cgn_blocks {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct cgn_block)); /* its BTF would be a declaration: only pointers lead to it */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, CGN_SLOTS);
	__type(key, __u32);
	__array(values, struct cgn_blocks);
} cgn_images SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, CGN_SLOTS);
	__type(key, __u32);
	__array(values, struct cgn_cells);
} cgn_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CGN_FLOWS_MAX);
	__type(key, struct cgn_flow_key);
	__type(value, struct cgn_flow_value);
} cgn_flows SEC(".maps");

/*
 * How many flows each cgroup and what is below it have, and all together. Programs count what they make; the daemon,
 * which takes flows out, sets it right. A flow is counted for its cgroup, for those above it on CGN_QUOTA_LEVELS levels
 * and for everybody. There is room for all counts, were no two flows below one cgroup that is not a child of the root;
 * few are ever there: not preallocated.
 */
#define CGN_QUOTA_EVERYBODY 0 /* no cgroup has this id */
struct cgn_quota {
	__u64 flows;
	__u64 parent_id; /* what it counts for beside itself; CGN_QUOTA_EVERYBODY: nobody else */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CGN_QUOTAS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct cgn_quota);
} cgn_quotas SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CGN_STAT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} cgn_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, CGN_EVENTS_BYTES);
} cgn_events SEC(".maps");

/* What a hook leaves on a socket for a later hook of the same socket. */
struct cgn_stamp {
	__u32 port_is_picked; /* a bind() to port 0 was allowed: post_bind judges the port that the kernel picks */
	__u32 source_is_ours; /* the address that it is bound to was given by a rule, not by the program */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cgn_stamp);
} cgn_stamps SEC(".maps");

#define CGN_PICKS_BITS 12

/* What bind leaves for post_bind in the same thread, mostly in place of a stamp. */
struct cgn_pick {
	__u32 thread_id; /* whose bind() to port 0 was allowed; 0: nobody's. Others leave the place alone */
	__u32 reserved;
	__u64 socket; /* cookie of the socket that it is about */
};

/* By the lower bits of the thread's id. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << CGN_PICKS_BITS);
	__type(key, __u32);
	__type(value, struct cgn_pick);
} cgn_picks SEC(".maps");

/* What changes while a generation is in force, beside its image. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, CGN_SLOTS);
	__type(key, __u32);
	__array(values, struct cgn_cells);
} cgn_live SEC(".maps");

/* The peers of a socket that connect() was redirected on, or that was before. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cgn_peers);
} cgn_peers SEC(".maps");

/* The local address that a rewritten bind() asked for. Cloned: what a listener accepts was bound by it too. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct cgn_view);
} cgn_binds SEC(".maps");

#define CGN_TALKS_MAX 16
#define CGN_ASKED_MAX 64 /* questions that answers are looked for: the last ones of a socket */

/* One destination that an unconnected UDP socket sent to. */
struct cgn_talk {
	__u64 asked[2];
	__u64 actual[2];
	__u64 waiting; /* bit N: no answer was seen to the datagram whose number is N below `newest` */
	__u32 newest; /* number of the last one sent */
	__u16 asked_port;
	__u16 actual_port;
	__u8 family; /* 0: a free entry */
	__u8 reserved[7];
};

/* Where an unconnected UDP socket sent to lately, since a datagram of it was redirected. */
struct cgn_talks {
	__u32 sent; /* numbers the datagrams */
	__u32 answered_after; /* how long answers take, in ticks of CGN_TICK_BITS; 0: not known */
	__u32 sent_at[CGN_ASKED_MAX]; /* by number, modulo: in ticks too */
	struct cgn_talk talk[CGN_TALKS_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cgn_talks);
} cgn_talks SEC(".maps");

/* What the client of an accepted connection had asked for. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cgn_origin);
} cgn_origins SEC(".maps");

/* From a redirected client to the socket that accepts it, in one network namespace. Gone with the client's socket. */
struct cgn_handoff_key {
	__u64 netns; /* cookie */
	__u64 client[2];
	__u64 server[2];
	__u16 client_port;
	__u16 server_port;
	__u32 family;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct cgn_handoff_key);
	__type(value, struct cgn_origin);
} cgn_handoffs SEC(".maps");

/* The backend that a cgroup sticks to. */
struct cgn_sticky_key {
	__u64 cgroup_id;
	__u64 service; /* CGN_SERVICE_KEY */
	__u32 family;
	__u32 reserved;
};

struct cgn_sticky_value {
	__u64 backend; /* CGN_BACKEND_KEY */
	__u64 expires_ns; /* CLOCK_BOOTTIME */
	__u32 index; /* where it was */
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct cgn_sticky_key);
	__type(value, struct cgn_sticky_value);
} cgn_sticky SEC(".maps");

/* The name that a redirected UNIX socket asked for, and where it went. */
struct cgn_names {
	__u32 asked_length;
	__u32 actual_length;
	char asked[CGN_UNIX_NAME_BYTES];
	char actual[CGN_UNIX_NAME_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cgn_names);
} cgn_names SEC(".maps");

#define CGN_CACHE_BITS 10

/* A verdict that this CPU gave before; see cache.bpf.h. */
struct cgn_cached {
	__u32 sequence; /* odd while it is written */
	__u32 counter; /* of the rule, on this CPU */
	__u64 era; /* generation and epoch */
	__u64 task_id;
	__u64 address[2];
	__u64 what; /* hook, family, protocol and port; 0: nothing governs the cgroup */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << CGN_CACHE_BITS);
	__type(key, __u32);
	__type(value, struct cgn_cached);
} cgn_cache SEC(".maps");

/* Which calls were allowed lately, by place; see cache.bpf.h. */
struct cgn_sights {
	__u8 tag[1 << CGN_CACHE_BITS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cgn_sights);
} cgn_sights SEC(".maps");

static __always_inline void cgn_stat_add(__u32 stat)
{
	__u64 *value = bpf_map_lookup_elem(&cgn_stats, &stat);

	if (value)
		__sync_fetch_and_add(value, 1);
}

#endif
