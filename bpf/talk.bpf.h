/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where an unconnected UDP socket sends to, so that an answer is shown as coming from where the question was sent. Must
 * not know of verdicts.
 *
 * Two questions to different addresses can go to one actual address. Whose the answer is cannot be read from it: it is
 * taken for that of the oldest question without one. Both hooks hold the socket's lock.
 */
#ifndef CGNETD_TALK_BPF_H
#define CGNETD_TALK_BPF_H

#include "call.bpf.h"
#include "endpoint.bpf.h"

#define CGN_TICK_BITS 20 /* of nanoseconds: about a millisecond, and 52 days until a number comes again */
#define CGN_ANSWER_TICKS (5000000000ull >> CGN_TICK_BITS) /* a question that is older has no answer any more */

_Static_assert(sizeof(struct cgn_talk) == 56, "cgn_talk");
_Static_assert(sizeof(struct cgn_talks) == 8 + CGN_ASKED_MAX * 4 + CGN_TALKS_MAX * 56, "cgn_talks");

static __always_inline struct cgn_talks *cgn_talks_of(void *sk, bool create)
{
	return bpf_sk_storage_get(&cgn_talks, sk, NULL, create ? BPF_SK_STORAGE_GET_F_CREATE : 0);
}

static __always_inline bool cgn_talk_is_with(const struct cgn_talk *talk, __u8 family, const __u64 actual[2],
					     __u16 port)
{
	return talk->family == family && talk->actual_port == port && talk->actual[1] == actual[1] &&
	       talk->actual[0] == actual[0];
}

static __always_inline bool cgn_talk_asked(const struct cgn_talk *talk, const struct cgn_call *call)
{
	return talk->asked_port == call->port && talk->asked[1] == call->address[1] &&
	       talk->asked[0] == call->address[0];
}

static __always_inline bool cgn_is_direct(const struct cgn_call *call)
{
	return call->port == call->target_port && call->address[1] == call->target[1] &&
	       call->address[0] == call->target[0];
}

/* How many datagrams the socket has sent since the last one of the talk. */
static __always_inline __u32 cgn_talk_is_quiet_for(const struct cgn_talks *talks, const struct cgn_talk *talk)
{
	return talk->family ? talks->sent - talk->newest : ~0u;
}

/*
 * The talk of a call to call->target, or the one to be replaced by it: a free one, else the one that was quiet for the
 * longest. CGN_TALKS_MAX: a direct call to where no redirected one went.
 */
__noinline __u32 cgn_talk_place(const struct cgn_talks *talks, const struct cgn_call *call)
{
	__u32 place = CGN_TALKS_MAX, longest = 0, quiet_for;
	bool is_known = false;

	if (!talks || !call)
		return CGN_TALKS_MAX;
	for (__u32 i = 0; i < CGN_TALKS_MAX; i++) {
		const struct cgn_talk *talk = &talks->talk[i];

		if (cgn_talk_is_with(talk, call->family, call->target, call->target_port)) {
			if (cgn_talk_asked(talk, call))
				return i;
			is_known = true;
		}
		quiet_for = cgn_talk_is_quiet_for(talks, talk);
		if (place >= CGN_TALKS_MAX || quiet_for > longest) {
			longest = quiet_for;
			place = i;
		}
	}
	return is_known || !cgn_is_direct(call) ? place : CGN_TALKS_MAX;
}

static __always_inline __u32 cgn_ticks(__u64 ns)
{
	return ns >> CGN_TICK_BITS;
}

/* Notes a datagram from call->address to call->target. */
static __always_inline void cgn_talk_note(struct cgn_talks *talks, const struct cgn_call *call)
{
	__u32 place = cgn_talk_place(talks, call), number, skipped;
	struct cgn_talk *talk;

	if (place >= CGN_TALKS_MAX)
		return;
	talk = &talks->talk[place];
	if (!cgn_talk_is_with(talk, call->family, call->target, call->target_port) || !cgn_talk_asked(talk, call))
		talk->waiting = 0;
	talk->family = call->family;
	talk->asked[0] = call->address[0];
	talk->asked[1] = call->address[1];
	talk->asked_port = call->port;
	talk->actual[0] = call->target[0];
	talk->actual[1] = call->target[1];
	talk->actual_port = call->target_port;
	number = ++talks->sent;
	talks->sent_at[number % CGN_ASKED_MAX] = cgn_ticks(bpf_ktime_get_boot_ns());
	skipped = number - talk->newest;
	talk->waiting = (skipped < CGN_ASKED_MAX ? talk->waiting << skipped : 0) | 1;
	talk->newest = number;
}

/* How many of the last datagrams are young enough to be answered still, CGN_ASKED_MAX at most: by bisection. */
__noinline __u32 cgn_answerable(const struct cgn_talks *talks, __u64 now)
{
	__u32 least = 0, most, half, sent_at;

	if (!talks)
		return 0;
	most = talks->sent < CGN_ASKED_MAX ? talks->sent : CGN_ASKED_MAX;
	for (int step = 0; step < 7 && least < most; step++) {
		half = (least + most + 1) / 2;
		sent_at = talks->sent_at[(talks->sent - half + 1) % CGN_ASKED_MAX];
		if (cgn_ticks(now) - sent_at <= CGN_ANSWER_TICKS)
			least = half;
		else
			most = half - 1;
	}
	return least;
}

/* The questions of a talk that wait for an answer, as talk->waiting, when so many of the last ones are answerable. */
static __always_inline __u64 cgn_talk_waiting(const struct cgn_talks *talks, const struct cgn_talk *talk,
					      __u32 answerable)
{
	__u32 later = talks->sent - talk->newest;

	if (answerable <= later)
		return 0;
	return talk->waiting & (~0ull >> (CGN_ASKED_MAX - (answerable - later)));
}

/* The number of the highest bit that is set; 0 if none is. */
__noinline __u32 cgn_highest_bit(__u64 bits)
{
	__u32 number = 0;

	for (__u32 half = 32; half; half /= 2) {
		if (bits >> half) {
			bits >>= half;
			number += half;
		}
	}
	return number;
}

/* What speaks for an answer being that of a talk: most for the oldest question that waits, else for the last one. */
__noinline __u64 cgn_talk_claim(const struct cgn_talks *talks, __u32 place, __u32 answerable)
{
	const struct cgn_talk *talk;
	__u64 waiting;
	__u32 later;

	if (!talks || place >= CGN_TALKS_MAX)
		return 0;
	talk = &talks->talk[place];
	waiting = cgn_talk_waiting(talks, talk, answerable);
	later = talks->sent - talk->newest;
	return waiting ? (1ull << 32) + later + cgn_highest_bit(waiting) : ~0u - later;
}

/* The talk that an answer from `actual` belongs to; CGN_TALKS_MAX: none. */
__noinline __u32 cgn_talk_of(const struct cgn_talks *talks, const struct cgn_endpoint *actual, __u64 now)
{
	__u32 best = CGN_TALKS_MAX, answerable;
	__u64 best_claim = 0, claim;

	if (!talks || !actual)
		return CGN_TALKS_MAX;
	answerable = cgn_answerable(talks, now);
	for (__u32 i = 0; i < CGN_TALKS_MAX; i++) {
		const struct cgn_talk *talk = &talks->talk[i];

		if (!cgn_talk_is_with(talk, actual->family, actual->address, actual->port))
			continue;
		claim = cgn_talk_claim(talks, i, answerable);
		if (best >= CGN_TALKS_MAX || claim > best_claim) {
			best_claim = claim;
			best = i;
		}
	}
	return best;
}

/*
 * Where the question was sent to that an answer from `actual` belongs to, NULL if that is not known. `stays`: the
 * answer is only looked at, and is received again.
 */
static __always_inline const struct cgn_talk *cgn_talk_take(struct cgn_talks *talks, const struct cgn_endpoint *actual,
							    bool stays)
{
	__u64 now = bpf_ktime_get_boot_ns(), waiting;
	__u32 place = cgn_talk_of(talks, actual, now);
	struct cgn_talk *talk;

	if (place >= CGN_TALKS_MAX)
		return NULL;
	talk = &talks->talk[place];
	waiting = cgn_talk_waiting(talks, talk, cgn_answerable(talks, now));
	if (!stays)
		talk->waiting = waiting & ~(1ull << cgn_highest_bit(waiting));
	return talk;
}

#endif
