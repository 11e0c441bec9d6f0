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
 *   live    what changes while a generation is in force: indexes of devices, addresses that the host has, backends that
 *           are alive. An array of 64-bit cells beside the image, cgn_live[slot], written by the daemon one aligned
 *           cell at a time. Which cell means what is the image's.
 *   chain   the verdict walks the policies of the label; within one policy the cost does not depend on its rules.
 *
 * A zero never means "match any" or "allow": slot generation 0 is "empty", reference 0 is "corrupt" and denies.
 */
#ifndef CGNETD_ABI_H
#define CGNETD_ABI_H

#ifndef __bpf__
#include <linux/types.h>
#endif
#include "tables.h"
#include "views.h"

#define CGN_MAGIC 0x6e676331u /* "1cgn" */
#define CGN_ABI_VERSION 6

#define CGN_SLOTS 2
#define CGN_CHAIN_MAX 26 /* policies that can govern one cgroup, excluded ones counted */
#define CGN_NAME_MAX 256 /* a cgroup's name with its NUL: NAME_MAX + 1 */
#define CGN_BLOCK_CELLS 8192 /* of an image, which is whole blocks: one look-up finds all cells of a block */
#define CGN_BISECT_STEPS 24 /* a bisection covers up to 2^24 entries */

/* Hooks as rules and events name them. */
enum cgn_hook {
	CGN_HOOK_CONNECT = 0,
	CGN_HOOK_SENDMSG = 1,
	CGN_HOOK_BIND = 2,
	CGN_HOOK_POST_BIND = 3, /* a bind() to port 0, with the port the kernel picked */
	CGN_HOOK_SOCKET = 4, /* socket() of a kind whose later calls no hook sees */
	CGN_HOOK_CREATE = 5, /* socket() by the rules of `socket` */
};

/* Families as calls, flows and views name them. */
#define CGN_FAMILY_UNIX 1
#define CGN_FAMILY_V4 4
#define CGN_FAMILY_V6 6

/* Longest name of a UNIX socket, and the room for one. An abstract name begins with a NUL, which counts. */
#define CGN_UNIX_NAME_MAX 108
#define CGN_UNIX_NAME_BYTES 112

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
 * Egress: hook * CGN_PROTO_COUNT + proto (12). Bind: proto (6). Socket: (IPv6 ? 4 : 0) + enum cgn_socket_type (8).
 * Unix: hook, CGN_HOOK_CONNECT or CGN_HOOK_SENDMSG (2).
 */
enum cgn_direction {
	CGN_DIR_EGRESS = 0,
	CGN_DIR_BIND = 1,
	CGN_DIR_TABLES = 2, /* those before have address tables */
	CGN_DIR_SOCKET = 2,
	CGN_DIR_UNIX = 3,
	CGN_DIR_COUNT = 4,
};

enum cgn_socket_type {
	CGN_TYPE_STREAM = 0,
	CGN_TYPE_DGRAM = 1,
	CGN_TYPE_RAW = 2,
	CGN_TYPE_OTHER = 3,
	CGN_TYPE_COUNT = 4,
};
#define CGN_SOCKET_CONTEXTS 8
#define CGN_EGRESS_CONTEXTS 12
#define CGN_BIND_CONTEXTS 6

enum cgn_action {
	CGN_ACTION_INVALID = 0, /* denies */
	CGN_ACTION_ALLOW = 1,
	CGN_ACTION_DENY = 2,
	CGN_ACTION_PASS = 3, /* leaves this policy, the next one decides */
	CGN_ACTION_REWRITE = 4, /* allowed, but to another address or name: `redirect`, or `rewrite` of bind */
};

/* ---- image ------------------------------------------------------------------------------------------------- */

/* Header cells. */
#define CGN_IMAGE_MAGIC 0 /* CGN_MAGIC | CGN_ABI_VERSION */
#define CGN_IMAGE_COUNTS 1 /* policy count | rule count (ids 0 .. count-1, built-in ones included) */
#define CGN_IMAGE_DEFAULT 2 /* generation | enum cgn_action of the daemon's default_action */
#define CGN_IMAGE_RULES 3 /* 0 | offset of the rule cells: cell of rule id R is at offset + R */
#define CGN_IMAGE_STATES 4 /* offset of the automaton's states | state count */
#define CGN_IMAGE_SIZE 5 /* 0 | number of cells, a multiple of CGN_BLOCK_CELLS; zeros fill the last block */
#define CGN_IMAGE_EFFECTS                                                                                              \
	6 /* 0 | offset of the effect index, one cell a rule id: 0 | offset of its effect; 0: no effects */
#define CGN_IMAGE_SERVICES 7 /* offset of the service records | service count */
#define CGN_IMAGE_HEADER 8 /* cells of the header; the policy headers follow at once */

/* Policy header: cell CGN_IMAGE_HEADER + policy id * CGN_POLICY_CELLS. Policy ids are dense and sorted by (tier,
 * priority, name). */
#define CGN_POLICY_CELLS 32
#define CGN_POLICY_BASE 0 /* base of this policy's blob | id of its first rule */
#define CGN_POLICY_FLAGS 1 /* CGN_POLICY_* flags | enum cgn_tier */
#define CGN_POLICY_V4 2 /* + direction: first node of the address table (tables.h) */
#define CGN_POLICY_V6 4 /* + direction: the same */
#define CGN_POLICY_ROWS 6 /* + direction: offset of the rows in the blob | row count (tables.h) */
#define CGN_POLICY_OPAQUE 8 /* + enum cgn_proto or CGN_OPAQUE_RAW: 0 | rule reference; 7 cells, 8..14 */
#define CGN_POLICY_DEFAULTS 15 /* rule reference of default.egress | of default.bind */
#define CGN_POLICY_SOCKET 16 /* + context: 0 | rule reference for a new socket; 8 cells, 16..23 */
#define CGN_POLICY_NAMES 24 /* offset in the blob of the states of the name automaton | state count */
#define CGN_POLICY_NAMES_UNSURE 25 /* rule references, connect | sendmsg, of a name that could be any path */
#define CGN_POLICY_TCP 26 /* initial RTO in ms | initial congestion window in segments; 0: the kernel's own */
#define CGN_POLICY_CONGESTION                                                                                          \
	27 /* 2 cells: name of the congestion control in memory order, NUL-padded; 0: the kernel's own */
#define CGN_POLICY_COLUMNS 29 /* + direction: columns of the rows (tables.h) */

#define CGN_POLICY_AUDIT (1u << 0) /* shadow verdict only */
#define CGN_POLICY_EGRESS (1u << 1) /* has an egress section or default; otherwise passes at once */
#define CGN_POLICY_BIND (1u << 2)
#define CGN_POLICY_NEW_SOCKET (1u << 3) /* has a socket section or default */
#define CGN_POLICY_UNIX (1u << 4) /* has egress rules on UNIX sockets */
#define CGN_POLICY_TUNES_TCP (1u << 5)

enum cgn_tier {
	CGN_TIER_ADMIN = 0,
	CGN_TIER_NORMAL = 1,
	CGN_TIER_BASELINE = 2,
};

/*
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
#define CGN_RULE_EFFECT (1u << 1) /* it has an effect: always if it rewrites, perhaps if it allows */

/*
 * Effect: what an allowing or rewriting rule does to the call, CGN_EFFECT_CELLS cells.
 *
 * `to` (egress: the new destination, bind: the new local address): the address counts if its CGN_EFFECT_TO* flag is set
 * and is kept otherwise; a port of 0 is kept. With CGN_EFFECT_SERVICE the destination is a backend of the service.
 * `source`: the local address of the flow, and the live cell that says whether the host has it.
 */
#define CGN_EFFECT_CELLS 16
#define CGN_EFFECT_FLAGS 0 /* CGN_EFFECT_* | service id */
#define CGN_EFFECT_TO_V4 1 /* address | port */
#define CGN_EFFECT_TO_V6 2 /* 3 cells: bits 127..64; bits 63..0; 0 | port */
#define CGN_EFFECT_SOURCE_V4 5 /* address | live cell */
#define CGN_EFFECT_SOURCE_V6 6 /* 3 cells: bits 127..64; bits 63..0; 0 | live cell */
#define CGN_EFFECT_OPTIONS 9 /* SO_MARK | SO_PRIORITY */
#define CGN_EFFECT_LINK 10 /* 0 | live cell of the device's index, 0 in there: it does not exist */
#define CGN_EFFECT_NAME 1 /* unix: 0 | length of the new name; the bytes follow in 14 cells, NUL-padded */

#define CGN_EFFECT_TO4 (1u << 0)
#define CGN_EFFECT_TO6 (1u << 1)
#define CGN_EFFECT_SERVICE (1u << 2)
#define CGN_EFFECT_SOURCE4 (1u << 3)
#define CGN_EFFECT_SOURCE6 (1u << 4)
#define CGN_EFFECT_PRIVILEGED (1u << 5) /* bind: no CAP_NET_BIND_SERVICE needed */
#define CGN_EFFECT_MARK (1u << 6)
#define CGN_EFFECT_PRIORITY (1u << 7)
#define CGN_EFFECT_DEVICE (1u << 8)
#define CGN_EFFECT_UNIX (1u << 9)

/*
 * Service record, at the offset in CGN_IMAGE_SERVICES + id * CGN_SERVICE_CELLS. Backends of one family: records of
 * CGN_BACKEND_CELLS cells in the image; in the live cells a table of CGN_CHOICES choices, each `0 | index of a backend
 * that is alive, plus 1` (0: none is) in proportion to the weights, and a state cell a backend: 1 alive, 0 dead.
 */
#define CGN_SERVICE_CELLS 8
#define CGN_SERVICE_FLAGS 0 /* CGN_SERVICE_* | errno when no backend is alive */
#define CGN_SERVICE_KEY 1 /* of its name, the same in every generation; never 0 */
#define CGN_SERVICE_STICKY_NS 2 /* 0: every choice is random */
#define CGN_SERVICE_V4 3 /* 2 cells: offset of the backends | their count; live cell of the choices | of the states */
#define CGN_SERVICE_V6 5 /* the same */

#define CGN_CHOICES 1024
#define CGN_BACKENDS_MAX 256 /* of one family of a service */
#define CGN_BACKEND_CELLS 4
#define CGN_BACKEND_ADDRESS 0 /* 2 cells: bits 127..64; 63..0; IPv4 in the low 32 bits */
#define CGN_BACKEND_PORT 2 /* 0 | port, 0 is kept */
#define CGN_BACKEND_KEY 3 /* of address and port, the same in every generation; never 0 */

/*
 * Name automaton of a policy's rules on UNIX sockets: deterministic, over the bytes of the name as it was given (a
 * leading NUL included, the one at the end of a path not). State 0 is the start. State cells, 3 each: `default next
 * state | 0`, `offset of the edges in the blob | edge count`, and the rule references of a name that ends here:
 * `connect | sendmsg`. Edge cells, sorted by byte: `byte | next state`.
 *
 * Subject automaton: deterministic, over the bytes of a cgroup's path below the root. State 0 is the root itself; a
 * child is reached by feeding '/' and its name. State cells, 2 each: `default next state | offset of the accept list or
 * 0`, `offset of the edges | edge count`. Edge cells, sorted by byte: `byte | next state`. Accept list: `number of
 * policies whose subject matches here | number of those whose not: matches here`, then one cell a policy id: the
 * matching ones ascending, then the excluding ones ascending. Offsets here count from the image's start.
 */
#define CGN_STATE_CELLS 2
#define CGN_NAME_STATE_CELLS 3

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
	__u32 flags; /* CGN_CONTROL_* */
	__u64 netns; /* cookie of the daemon's network namespace, whose devices and addresses the live cells speak of */
};

#define CGN_CONTROL_VIEWS (1u << 0) /* rules rewrite, or did since these pins were made: sockets can hold views */

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
#define CGN_FLOW_REWRITTEN                                                                                             \
	(1u << 4) /* the call went on to value.new_address (unix: to the name of the rule's effect) */
#define CGN_FLOW_SHADOW_REWRITTEN (1u << 5)

/* Why a call that the rules let pass was denied all the same. */
enum cgn_reason {
	CGN_REASON_NONE = 0,
	CGN_REASON_NO_BACKEND = 1, /* no backend of the service is alive */
	CGN_REASON_NO_SOURCE = 2, /* the host does not have the source address, or the socket is bound to another one */
	CGN_REASON_NO_DEVICE = 3, /* the device does not exist, or the socket is of another network namespace */
	CGN_REASON_NO_MEMORY = 4, /* what has to be remembered with the socket found no room */
};

struct cgn_flow_key { /* cgn_flows: what one event tells; every byte set */
	__u32 generation;
	__u32 rule; /* that decided */
	__u32 shadow_rule; /* that would decide with audit policies enforced; = rule where the same */
	__u16 protocol; /* IPPROTO_* */
	__u16 port; /* of `address`, host order */
	__u8 hook; /* enum cgn_hook */
	__u8 family; /* CGN_FAMILY_* (an IPv4-mapped address is of CGN_FAMILY_V4) */
	__u8 flags;
	__u8 errno_; /* the call got, 0 if allowed */
	__u8 reason; /* enum cgn_reason */
	__u8 type; /* SOCK_* of the socket for CGN_HOOK_CREATE, else 0 */
	__u16 reserved;
	__u64 cgroup_id; /* of the identity that decided */
	__u64 address[2]; /* the remote (egress) or wanted local (bind) one: bits 127..64, 63..0; IPv4 in the low 32
			     bits; a hash of the name for UNIX sockets */
};

struct cgn_flow_value {
	__u64 count; /* calls seen */
	__u64 reported; /* of those, in events already */
	__u64 window_start_ns; /* CLOCK_BOOTTIME, as all times here */
	__u64 first_ns; /* since the last event */
	__u64 last_ns;
	__u64 task_cgroup_id; /* of the last call, as all that follows */
	__u64 socket_cgroup_id;
	__u64 local_address[2]; /* that the socket is bound to or that a rule's source gave it */
	__u32 pid;
	__u32 uid;
	__u16 local_port;
	__u16 new_port; /* of new_address */
	__u16 name_length;
	__u16 reserved;
	char comm[16];
	__u64 new_address[2]; /* where the call went, if CGN_FLOW_REWRITTEN. Of a collected flow: since when
				 destinations are counted, and how many got a flow of their own */
	char name[CGN_UNIX_NAME_BYTES]; /* of a UNIX socket, name_length bytes */
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
_Static_assert(sizeof(struct cgn_control) == 48, "cgn_control");
_Static_assert(sizeof(struct cgn_label) == 64, "cgn_label");
_Static_assert(sizeof(struct cgn_entry) == 128, "cgn_entry");
_Static_assert(sizeof(struct cgn_flow_key) == 48, "cgn_flow_key");
_Static_assert(sizeof(struct cgn_flow_value) == 232, "cgn_flow_value");
_Static_assert(sizeof(struct cgn_flow_record) == 296, "cgn_flow_record");
_Static_assert(sizeof(struct cgn_cgroup_record) == 280, "cgn_cgroup_record");

#endif
