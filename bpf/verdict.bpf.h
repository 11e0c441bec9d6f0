/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The verdict of one identity on one socket call: classification, the walk along a chain. The very same functions serve
 * the hooks and the test program. Must not know of hook contexts, kernel structures, counters or events.
 *
 * A verdict is a rule cell; 0 is "does not judge". Functions that are not static are verified once, on their own, for
 * any argument, and may be called in loops at no cost to the verifier.
 */
#ifndef CGNETD_VERDICT_BPF_H
#define CGNETD_VERDICT_BPF_H

#include "call.bpf.h"
#include "image.bpf.h"
#include "names.bpf.h"

/*
 * The directions that the programs of an object judge, a bit each; to be defined before. What the others need is left
 * out: frames of called functions add up to 512 bytes at most.
 */
#ifndef CGN_DIRECTIONS
#define CGN_DIRECTIONS ((1 << CGN_DIR_COUNT) - 1)
#endif

#define CGN_NO_POLICY (~0u) /* in place of a policy id */

static __always_inline bool cgn_is_direction(const struct cgn_question *question, enum cgn_direction direction)
{
	return CGN_DIRECTIONS & 1 << direction &&
	       (CGN_DIRECTIONS == 1 << direction || question->direction == direction);
}

static __always_inline bool cgn_denies(__u64 rule)
{
	return CGN_CELL_ACTION(rule) == CGN_ACTION_DENY;
}

static __always_inline bool cgn_rewrites(__u64 rule)
{
	return CGN_CELL_ACTION(rule) == CGN_ACTION_REWRITE;
}

/* What a rule comes to where it cannot be followed: the same rule, denying. */
static __always_inline __u64 cgn_as_deny(__u64 rule, __u32 errno_)
{
	return (rule & ~0xffff00ffull) | errno_ << 16 | CGN_ACTION_DENY;
}

/* What a rule comes to where nothing is to be rewritten: the same rule, allowing. */
static __always_inline __u64 cgn_as_allow(__u64 rule)
{
	return cgn_rewrites(rule) ? (rule & ~0xffull) | CGN_ACTION_ALLOW : rule;
}

/* Of two verdicts the first that denies, otherwise the first that judges. */
static __always_inline __u64 cgn_stricter(__u64 first, __u64 second)
{
	return !first || (!cgn_denies(first) && cgn_denies(second)) ? second : first;
}

static __always_inline bool cgn_reference_of_port(struct cgn_reader *reader, __u32 blob, __u64 cell, __u16 port,
						  __u32 *reference)
{
	if (CGN_HI(cell) & CGN_PORTS_RANGE) {
		*reference = port >= CGN_LO(cell) >> 16 && port <= (__u16)cell ? CGN_HI(cell) & ~CGN_PORTS_RANGE
									       : CGN_REF_NONE;
		return *reference != CGN_REF_CORRUPT;
	}
	if (CGN_LO(cell) & CGN_PORTS_INDEX &&
	    !cgn_read(reader, blob + CGN_HI(cell) + (port >> (CGN_LO(cell) & 15)), &cell))
		return false;
	*reference = CGN_HI(cell);
	if (CGN_LO(cell)) {
		if (!cgn_bisect(reader, blob + CGN_HI(cell), CGN_LO(cell), (__u64)port << 32 | ~0u, &cell))
			return false;
		*reference = CGN_LO(cell);
	}
	return *reference != CGN_REF_CORRUPT;
}

/* Of two references the one of the rule that comes first. */
static __always_inline __u32 cgn_earlier(__u32 one, __u32 other)
{
	return one - CGN_REF_RULE <= other - CGN_REF_RULE ? one : other; /* nothing decided wraps to the last */
}

/* What a row says of a port; of one that the kernel picked, the earlier one of `ephemeral` and the port. */
static __always_inline bool cgn_reference(const struct cgn_question *question, struct cgn_reader *reader, __u32 blob,
					  __u32 cell_at, __u32 *reference)
{
	__u32 ephemeral;
	__u64 cell;

	if (!cgn_read(reader, cell_at, &cell) || !cgn_reference_of_port(reader, blob, cell, question->port, reference))
		return false;
	if (question->hook != CGN_HOOK_POST_BIND)
		return true;
	if (!cgn_reference_of_port(reader, blob, cell, 0, &ephemeral))
		return false;
	*reference = cgn_earlier(*reference, ephemeral);
	return true;
}

/*
 * Classification: address -> row -> ports -> rule reference; the same of the row for any address. That one is asked
 * last, for it does not depend on what is loaded for the others.
 */
static __always_inline bool cgn_classify(const struct cgn_question *question, struct cgn_reader *reader, __u32 header,
					 __u32 blob, __u32 *reference)
{
	__u32 direction = question->direction & (CGN_DIR_COUNT - 1), row, own, common;
	bool is_v4 = question->family == CGN_FAMILY_V4;
	__u64 table, rows, columns;

	if (!cgn_read(reader, header + (is_v4 ? CGN_POLICY_V4 : CGN_POLICY_V6) + direction, &table) ||
	    !cgn_read(reader, header + CGN_POLICY_ROWS + direction, &rows) ||
	    !cgn_read(reader, header + CGN_POLICY_COLUMNS + direction, &columns) ||
	    !cgn_row(reader, blob, table, question->address, is_v4 ? 96 : 0, &row))
		return false;
	if (row >= CGN_LO(rows) || question->context >= CGN_EGRESS_CONTEXTS ||
	    CGN_COLUMN(columns, question->context) >= CGN_COLUMNS(columns))
		return false;
	common = blob + CGN_HI(rows) + CGN_COLUMN(columns, question->context);
	if (!cgn_reference(question, reader, blob, common + (row + 1) * CGN_COLUMNS(columns), &own) ||
	    !cgn_reference(question, reader, blob, common, reference))
		return false;
	*reference = cgn_earlier(own, *reference);
	return true;
}

/* One reference a class of sockets: new ones, or those whose later calls no hook sees. */
static __always_inline bool cgn_classify_socket(const struct cgn_question *question, struct cgn_reader *reader,
						__u32 header, __u32 *reference)
{
	bool is_new = question->direction == CGN_DIR_SOCKET;
	__u32 first = header + (is_new ? CGN_POLICY_SOCKET : CGN_POLICY_OPAQUE);
	__u64 cell;

	if (question->context >= (is_new ? CGN_SOCKET_CONTEXTS : CGN_OPAQUE_COUNT) ||
	    !cgn_read(reader, first + question->context, &cell))
		return false;
	*reference = CGN_LO(cell);
	return *reference != CGN_REF_CORRUPT;
}

static __always_inline bool cgn_classify_call(const struct cgn_question *question, const struct cgn_name *name,
					      struct cgn_reader *reader, __u32 header, __u32 blob, __u32 *reference)
{
	if (cgn_is_direction(question, CGN_DIR_UNIX))
		return cgn_classify_name(question, name, reader->image, header, blob, reference);
	if (cgn_is_direction(question, CGN_DIR_SOCKET) || question->hook == CGN_HOOK_SOCKET)
		return cgn_classify_socket(question, reader, header, reference);
	return cgn_classify(question, reader, header, blob, reference);
}

/* The flag of a policy that has something to say of a direction. */
static __always_inline __u32 cgn_flag_of(const struct cgn_question *question)
{
	if (cgn_is_direction(question, CGN_DIR_EGRESS))
		return CGN_POLICY_EGRESS;
	if (cgn_is_direction(question, CGN_DIR_BIND))
		return CGN_POLICY_BIND;
	return cgn_is_direction(question, CGN_DIR_SOCKET) ? CGN_POLICY_NEW_SOCKET : CGN_POLICY_UNIX;
}

/*
 * Begins to read the image, which must be of the generation that the labels are of, with what every verdict needs of
 * its header.
 */
static __always_inline bool cgn_open_image(struct cgn_question *question, struct cgn_reader *reader,
					   __u32 *policy_count)
{
	__u64 fallback, counts, rules;

	if (!cgn_read_from(reader, question->slot) || !cgn_read(reader, CGN_IMAGE_DEFAULT, &fallback) ||
	    CGN_HI(fallback) != question->generation)
		return false;
	if (!cgn_read(reader, CGN_IMAGE_COUNTS, &counts) || !cgn_read(reader, CGN_IMAGE_RULES, &rules))
		return false;
	*policy_count = CGN_HI(counts);
	question->rule_count = CGN_LO(counts);
	question->rules = CGN_LO(rules);
	return true;
}

/* The cell of a rule; fails for one that cannot be right. */
static __always_inline bool cgn_rule(const struct cgn_question *question, struct cgn_reader *reader, __u32 id,
				     __u64 *rule)
{
	return id < question->rule_count && cgn_read(reader, question->rules + id, rule) &&
	       cgn_rule_is_right(*rule, id);
}

/*
 * What a rewriting rule says of this call. One that cannot be followed denies: the destination is not known yet, or the
 * name could be any. A port that the kernel has picked cannot be rewritten any more.
 */
static __always_inline __u64 cgn_says(const struct cgn_question *question, const struct cgn_name *name, __u64 rule)
{
	if (!cgn_rewrites(rule))
		return rule;
	if (question->hook == CGN_HOOK_SOCKET || (cgn_is_direction(question, CGN_DIR_UNIX) && cgn_name_is_unsure(name)))
		return cgn_as_deny(rule, CGN_EPERM);
	return question->hook == CGN_HOOK_POST_BIND ? cgn_as_allow(rule) : rule;
}

/* For what no policy decided: the daemon's default_action. One that is neither allow nor deny cannot be right. */
static __always_inline __u64 cgn_default(const struct cgn_question *question, struct cgn_reader *reader)
{
	__u64 rule;

	if (!cgn_rule(question, reader, CGN_RULE_DEFAULT, &rule) || CGN_CELL_ACTION(rule) > CGN_ACTION_DENY)
		return CGN_CELL_CORRUPT;
	return rule;
}

/* What a policy says whose header begins at a cell: see cgn_ask_policy(). */
static __always_inline __u64 cgn_policy_says(const struct cgn_question *question, struct cgn_reader *reader,
					     __u32 header, const struct cgn_name *name)
{
	__u32 reference, rule_id;
	__u64 flags, base, rule;

	if (!cgn_read(reader, header + CGN_POLICY_FLAGS, &flags))
		return CGN_CELL_CORRUPT;
	if (!(CGN_HI(flags) & cgn_flag_of(question)))
		return 0;
	if (!cgn_read(reader, header + CGN_POLICY_BASE, &base) ||
	    !cgn_classify_call(question, name, reader, header, CGN_HI(base), &reference))
		return CGN_CELL_CORRUPT;
	if (reference == CGN_REF_NONE)
		return 0;
	rule_id = CGN_LO(base) + (reference - CGN_REF_RULE);
	if (rule_id < CGN_LO(base) ||
	    !cgn_rule(question, reader, rule_id, &rule)) /* a sum that wrapped names another rule */
		return CGN_CELL_CORRUPT;
	if (CGN_CELL_ACTION(rule) == CGN_ACTION_PASS)
		return 0;
	rule = cgn_says(question, name, rule);
	return (rule & ~CGN_CELL_AUDIT) | (CGN_HI(flags) & CGN_POLICY_AUDIT ? CGN_CELL_AUDIT : 0);
}

/*
 * What one policy says: the cell of the rule that decides (with CGN_CELL_AUDIT set if the policy does not enforce), or
 * 0 if it passes. CGN_NO_POLICY says what holds if none decided: of UNIX names and new sockets the daemon's
 * default_action does not speak. `name` is that of a UNIX socket, else NULL.
 */
__weak __noinline __u64 cgn_ask_policy(struct cgn_question *question, __u32 policy, const struct cgn_name *name)
{
	struct cgn_reader reader;
	__u32 policy_count;

	if (!question)
		return CGN_CELL_CORRUPT;
	if (policy == CGN_NO_POLICY && question->direction >= CGN_DIR_TABLES)
		return CGN_CELL_UNDECIDED;
	if (!cgn_open_image(question, &reader, &policy_count))
		return CGN_CELL_CORRUPT;
	if (policy == CGN_NO_POLICY)
		return cgn_default(question, &reader);
	if (policy >= policy_count)
		return CGN_CELL_CORRUPT;
	return cgn_policy_says(question, &reader, CGN_IMAGE_HEADER + policy * CGN_POLICY_CELLS, name);
}

/*
 * The first decision along the chain of call->label: the first of any policy is the shadow, of an enforcing one the
 * verdict.
 */
static __always_inline void cgn_walk(struct cgn_call *call, const struct cgn_name *name)
{
	__u64 shadow = 0, rule = 0, said;

	for (__u32 i = 0; i < CGN_CHAIN_MAX && i < call->label.governing; i++) {
		said = cgn_ask_policy(&call->question, call->label.policy[i], name);
		if (!said)
			continue;
		if (!shadow) {
			shadow = said & ~CGN_CELL_AUDIT;
			call->shadow_at = i;
		}
		if (!(said & CGN_CELL_AUDIT)) {
			rule = said;
			call->rule_at = i;
			break;
		}
	}
	if (!rule)
		rule = cgn_ask_policy(&call->question, CGN_NO_POLICY, name);
	call->rule = rule;
	call->shadow = shadow ?: rule;
}

/* The verdict by call->label on the call as it was made, into call->rule and call->shadow. */
__weak __noinline int cgn_judge(struct cgn_call *call, const struct cgn_name *name)
{
	if (!call)
		return 0;
	if (call->label.flags & CGN_LABEL_OVERFLOW)
		call->rule = call->shadow = CGN_CELL_DENY(CGN_RULE_OVERFLOW);
	else if (call->label.governing > CGN_CHAIN_MAX)
		call->rule = call->shadow = CGN_CELL_CORRUPT;
	else
		cgn_walk(call, name);
	return 0;
}

#endif
