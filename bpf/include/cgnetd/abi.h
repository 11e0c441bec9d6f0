/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one contract between the programs in the kernel and the daemon.
 *
 * daemon/cgnetd/datapath/abi.py mirrors this file; tests/unit/test_abi.py compares the two. Any change that an older
 * reader would misread raises CGN_ABI_VERSION.
 *
 * Two generations live side by side, in two slots. cgn_control.active names the slot in force: writing it is the one
 * step that swaps the whole policy set. A program reads it once and uses that slot for everything.
 *
 *   label   what a cgroup is, per slot: its state in the subject automaton and the chain of policies that govern it, in
 *           the order of evaluation. Kept in the map cgn_labels, keyed by cgroup id.
 *   image   everything that was compiled from the policy set: an immutable array of 64-bit cells, reached through the
 *           map-in-map cgn_images[slot]. Offsets are in cells. The two halves of a cell are written HI | LO.
 *   chain   the verdict walks the policies of the label; within one policy the cost does not depend on its rules.
 *
 * A zero never means "match any" or "allow": slot generation 0 is "empty", reference 0 is "corrupt" and denies.
 */
#ifndef CGNETD_ABI_H
#define CGNETD_ABI_H

#ifndef __bpf__
#include <linux/types.h>
#endif

#define CGN_MAGIC 0x6e676331u /* "1cgn" */
#define CGN_ABI_VERSION 1

#define CGN_SLOTS 2
#define CGN_CHAIN_MAX 26 /* policies that can govern one cgroup, excluded ones counted */
#define CGN_NAME_MAX 256 /* a cgroup's name with its NUL: NAME_MAX + 1 */
#define CGN_BISECT_STEPS 24 /* a bisection covers up to 2^24 entries */

/* Hooks as rules and events name them. */
enum cgn_hook {
	CGN_HOOK_CONNECT = 0,
	CGN_HOOK_SENDMSG = 1,
	CGN_HOOK_BIND = 2,
	CGN_HOOK_POST_BIND = 3, /* a bind() to port 0, with the port the kernel picked */
	CGN_HOOK_SOCKET = 4, /* socket() of a kind whose later calls no hook sees */
};

/* Protocol classes. MPTCP counts as TCP. */
enum cgn_proto {
	CGN_PROTO_TCP = 0,
	CGN_PROTO_UDP = 1,
	CGN_PROTO_UDPLITE = 2,
	CGN_PROTO_SCTP = 3,
	CGN_PROTO_ICMP = 4, /* ICMP and ICMPv6 */
	CGN_PROTO_OTHER = 5,
	CGN_PROTO_COUNT = 6,
};
#define CGN_OPAQUE_RAW 6 /* SOCK_RAW can send any protocol */
#define CGN_OPAQUE_COUNT 7

/*
 * Directions, and the context of a call within one: the column family of a row.
 * Egress: hook * CGN_PROTO_COUNT + proto (12). Bind: proto (6).
 */
enum cgn_direction {
	CGN_DIR_EGRESS = 0,
	CGN_DIR_BIND = 1,
	CGN_DIR_COUNT = 2,
};
#define CGN_EGRESS_CONTEXTS 12
#define CGN_BIND_CONTEXTS 6

enum cgn_action {
	CGN_ACTION_INVALID = 0, /* denies */
	CGN_ACTION_ALLOW = 1,
	CGN_ACTION_DENY = 2,
	CGN_ACTION_PASS = 3, /* leaves this policy, the next one decides */
};

/* ---- image ------------------------------------------------------------------------------------------------- */

/* Header cells. */
#define CGN_IMAGE_MAGIC 0 /* CGN_MAGIC | CGN_ABI_VERSION */
#define CGN_IMAGE_COUNTS 1 /* policy count | rule count (ids 0 .. count-1, built-in ones included) */
#define CGN_IMAGE_DEFAULT 2 /* generation | enum cgn_action of the daemon's default_action */
#define CGN_IMAGE_RULES 3 /* 0 | offset of the rule cells: cell of rule id R is at offset + R */
#define CGN_IMAGE_STATES 4 /* offset of the automaton's states | state count */
#define CGN_IMAGE_SIZE 5 /* 0 | number of cells */
#define CGN_IMAGE_HEADER 8 /* cells of the header; the policy headers follow at once */

/* Policy header: cell CGN_IMAGE_HEADER + policy id * CGN_POLICY_CELLS. Policy ids are dense and sorted by (tier,
 * priority, name). */
#define CGN_POLICY_CELLS 16
#define CGN_POLICY_BASE 0 /* base of this policy's blob | id of its first rule */
#define CGN_POLICY_FLAGS 1 /* CGN_POLICY_* flags | enum cgn_tier */
#define CGN_POLICY_V4 2 /* + direction: address table. root offset in the blob | root bits */
#define CGN_POLICY_V6 4 /* + direction: the same */
#define CGN_POLICY_ROWS 6 /* + direction: offset of the rows in the blob | row count */
#define CGN_POLICY_OPAQUE 8 /* + enum cgn_proto or CGN_OPAQUE_RAW: 0 | rule reference; 7 cells, 8..14 */
#define CGN_POLICY_DEFAULTS 15 /* rule reference of default.egress | of default.bind */

#define CGN_POLICY_AUDIT (1u << 0) /* shadow verdict only */
#define CGN_POLICY_EGRESS (1u << 1) /* has an egress section or default; otherwise passes at once */
#define CGN_POLICY_BIND (1u << 2)

enum cgn_tier {
	CGN_TIER_ADMIN = 0,
	CGN_TIER_NORMAL = 1,
	CGN_TIER_BASELINE = 2,
};

/*
 * Address table: a root of 2^bits cells indexed by the top `bits` bits of the address (bits 0..16), each cell
 * `offset in the blob of the first entry | entry count`. The entries of one root cell are sorted by start; the first
 * one starts at or before the first address of the cell, so that the answer is always the last entry with start <=
 * address. IPv4 entry, 1 cell:  start address (host order) | row IPv6 entry, 3 cells: start bits 127..64; start
 * bits 63..0; 0 | row Neighbouring root cells may share entries.
 *
 * Row: CGN_EGRESS_CONTEXTS or CGN_BIND_CONTEXTS cells, one a context: `offset in the blob of a port list | entry
 * count`. Port list: cells sorted by first port: `first port | rule reference`; the first entry starts at port 0.
 *
 * Rule reference: 0 corrupt (denies), 1 nothing decided here (next policy), otherwise 2 + index of the rule in its
 * policy. The defaults of a policy that decide (allow, deny) are rules too, behind its own ones.
 */
#define CGN_REF_CORRUPT 0u
#define CGN_REF_NONE 1u
#define CGN_REF_RULE 2u

/*
 * Rule cell: HI = rule id, LO = errno << 16 | flags << 8 | action. Ids below CGN_RULE_FIRST are built in and have cells
 * too.
 */
#define CGN_RULE_DEFAULT 0 /* nothing decided: the daemon's default_action */
#define CGN_RULE_UNLABELLED 1 /* a cgroup below the root that has no label: denied */
#define CGN_RULE_CORRUPT 2 /* an image that cannot be right: denied */
#define CGN_RULE_OVERFLOW 3 /* more than CGN_CHAIN_MAX policies: denied */
#define CGN_RULE_FIRST 4
#define CGN_RULE_LOG (1u << 0) /* make an event when it decides */

/*
 * Subject automaton: deterministic, over the bytes of a cgroup's path below the root. State 0 is the root itself; a
 * child is reached by feeding '/' and its name. State cells, 2 each: `default next state | offset of the accept list or
 * 0`, `offset of the edges | edge count`. Edge cells, sorted by byte: `byte | next state`. Accept list: `number of
 * policies whose subject matches here | number of those whose not: matches here`, then one cell a policy id: the
 * matching ones ascending, then the excluding ones ascending. Offsets here count from the image's start.
 */
#define CGN_STATE_CELLS 2

/* Reading a cell. */
#define CGN_HI(cell) ((__u32)((cell) >> 32))
#define CGN_LO(cell) ((__u32)(cell))

/* ---- maps -------------------------------------------------------------------------------------------------- */

struct cgn_meta { /* cgn_meta[0]: who made these pins */
	__u32 magic;
	__u32 abi;
	__u64 created_ns; /* CLOCK_REALTIME */
	char version[48]; /* of cgnetd, NUL-terminated */
};

struct cgn_control { /* cgn_control[0] */
	__u32 active; /* slot in force */
	__u32 generation[CGN_SLOTS]; /* generation in each slot, 0 = empty */
	__u32 root_level; /* cgroup level of the managed root */
	__u64 root_id; /* its cgroup id */
	__u64 window_ns; /* one event a key and window */
	__u32 epoch; /* counts the daemon's writes of labels: what was cached before one is stale */
	__u32 reserved;
};

#define CGN_LABEL_OVERFLOW (1u << 0) /* the chain did not fit: deny everything */

struct cgn_label {
	__u32 generation; /* must equal cgn_control.generation[slot], or the label is stale */
	__u32 state; /* in the subject automaton */
	__u8 governing; /* policies that govern, policy[0 .. governing) */
	__u8 excluded; /* policies that `not:` took away for good, right behind them */
	__u16 flags;
	__u16 policy[CGN_CHAIN_MAX];
};

struct cgn_entry { /* cgn_labels[cgroup id] */
	struct cgn_label slot[CGN_SLOTS];
};

/*
 * Counters: cgn_counters[slot] is an array of 64-bit cells, (row * rule count + rule id) * 2 + kind. One row a possible
 * CPU, and one more, the last, that only the daemon writes: what earlier generations had counted.
 */
enum cgn_counter {
	CGN_COUNT_ENFORCED = 0,
	CGN_COUNT_SHADOW = 1, /* the shadow verdict where it differs from the enforced one */
	CGN_COUNT_KINDS = 2,
};

/* cgn_stats, per CPU. */
enum cgn_stat {
	CGN_STAT_RING_FULL = 0, /* a record had to wait in cgn_flows: late, not lost */
	CGN_STAT_LOST = 1, /* calls that are in the counters but in no event */
	CGN_STAT_UNLABELLED = 2, /* verdicts for a cgroup without a label */
	CGN_STAT_LABEL_FAILED = 3, /* new cgroups that could not be labelled */
	CGN_STAT_OVERFLOW = 4, /* labels whose chain did not fit */
	CGN_STAT_CORRUPT = 5, /* verdicts from an image that cannot be right */
	CGN_STAT_COUNT = 6,
};

#define CGN_FLOW_DENIED (1u << 0) /* the enforced verdict */
#define CGN_FLOW_SHADOW_DENIED (1u << 1)
#define CGN_FLOW_BY_SOCKET (1u << 2) /* the socket's cgroup decided, not the task's */
#define CGN_FLOW_COLLECTED (1u << 3) /* many destinations in one: no room for each */

struct cgn_flow_key { /* cgn_flows: what one event tells; every byte set */
	__u32 generation;
	__u32 rule; /* that decided */
	__u32 shadow_rule; /* that would decide with audit policies enforced; = rule where the same */
	__u16 protocol; /* IPPROTO_* */
	__u16 port; /* of `address`, host order */
	__u8 hook; /* enum cgn_hook */
	__u8 family; /* 4 or 6 (an IPv4-mapped address is 4) */
	__u8 flags;
	__u8 errno_; /* the call got, 0 if allowed */
	__u32 reserved;
	__u64 cgroup_id; /* of the identity that decided */
	__u64 address[2]; /* the remote (egress) or wanted local (bind) one: bits 127..64, 63..0; IPv4 in the low 32
			     bits */
};

struct cgn_flow_value {
	__u64 count; /* calls seen */
	__u64 reported; /* of those, in events already */
	__u64 window_start_ns; /* CLOCK_BOOTTIME, as all times here */
	__u64 first_ns; /* since the last event */
	__u64 last_ns;
	__u64 task_cgroup_id; /* of the last call, as all that follows */
	__u64 socket_cgroup_id;
	__u64 local_address[2];
	__u32 pid;
	__u32 uid;
	__u16 local_port;
	__u16 reserved[3];
	char comm[16];
};

enum cgn_record_type {
	CGN_RECORD_FLOW = 1,
	CGN_RECORD_CGROUP = 2,
};

struct cgn_flow_record { /* cgn_events */
	__u32 type;
	__u32 reserved;
	__u64 count; /* calls this record stands for */
	struct cgn_flow_key key;
	struct cgn_flow_value value;
};

struct cgn_cgroup_record { /* cgn_events: a governed cgroup came, or one could not be labelled */
	__u32 type;
	__s32 error; /* 0, or -errno of labelling */
	__u64 cgroup_id;
	__u64 parent_id;
	char name[CGN_NAME_MAX];
};

_Static_assert(sizeof(struct cgn_meta) == 64, "cgn_meta");
_Static_assert(sizeof(struct cgn_control) == 40, "cgn_control");
_Static_assert(sizeof(struct cgn_label) == 64, "cgn_label");
_Static_assert(sizeof(struct cgn_entry) == 128, "cgn_entry");
_Static_assert(sizeof(struct cgn_flow_key) == 48, "cgn_flow_key");
_Static_assert(sizeof(struct cgn_flow_value) == 104, "cgn_flow_value");
_Static_assert(sizeof(struct cgn_flow_record) == 168, "cgn_flow_record");
_Static_assert(sizeof(struct cgn_cgroup_record) == 280, "cgn_cgroup_record");

#endif
