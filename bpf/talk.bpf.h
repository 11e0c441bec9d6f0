/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where an unconnected UDP socket sends to, so that an answer is shown as coming from where the question was sent. Must
 * not know of verdicts.
 *
 * Two questions to different addresses can go to one actual address. Whose the answer is cannot be read from it: it is
 * taken for that of the oldest question without one. An answer that was lost must not shift all that follow: questions
 * that are much older than answers take come after the others. Both hooks hold the socket's lock.
 */
#ifndef CGNETD_TALK_BPF_H
#define CGNETD_TALK_BPF_H

#include "call.bpf.h"
#include "endpoint.bpf.h"

#define CGN_TICK_BITS 20 /* of nanoseconds: about a millisecond, and 52 days until a number comes again */
#define CGN_ANSWER_TICKS (5000000000ull >> CGN_TICK_BITS) /* a question that is older has no answer any more */
#define CGN_LATE_TICKS (250000000ull >> CGN_TICK_BITS) /* one that is older may have lost it, if nothing is known */
#define CGN_LATE_FACTOR 4 /* if it is: so many times older than what answers take, */
#define CGN_LATE_LEAST 32 /* and at least this */

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

/* Where the very talk of a call is; CGN_TALKS_MAX: nowhere. Most datagrams go where one went before. */
__weak __noinline __u32 cgn_talk_again(const struct cgn_talks *talks, const struct cgn_call *call)
{
	const struct cgn_talk *talk;
	__u64 differs;

	if (!talks || !call)
		return CGN_TALKS_MAX;
	for (__u32 i = 0; i < CGN_TALKS_MAX; i++) {
		talk = &talks->talk[i];
		differs = (talk->actual[1] ^ call->target[1]) | (talk->actual[0] ^ call->target[0]);
		differs |= (talk->asked[1] ^ call->address[1]) | (talk->asked[0] ^ call->address[0]);
		differs |= talk->family ^ call->family;
		differs |= (talk->actual_port ^ call->target_port) | (talk->asked_port ^ call->port);
		if (!differs)
			return i;
	}
	return CGN_TALKS_MAX;
}

/*
 * What speaks for noting a new talk in the entry at `place`: most that it is free, then how many datagrams ago its
 * talk's last one was. All in one number, as below.
 */
#define CGN_RANK_FREE (1ull << 61)
#define CGN_RANK_QUIET 8 /* from this bit on */
#define CGN_RANK_KNOWN 0x80 /* a talk with the target */

__weak __noinline __u64 cgn_talk_rank(const struct cgn_talks *talks, __u32 place, const struct cgn_call *call)
{
	const struct cgn_talk *talk;
	__u64 rank;

	if (!talks || place >= CGN_TALKS_MAX || !call)
		return 0;
	talk = &talks->talk[place];
	if (!talk->family)
		return CGN_RANK_FREE | place;
	rank = (__u64)(__u32)(talks->sent - talk->newest) << CGN_RANK_QUIET | place;
	return rank | (cgn_talk_is_with(talk, call->family, call->target, call->target_port) ? CGN_RANK_KNOWN : 0);
}

/*
 * The talk of a call to call->target, or the one to be replaced by it. CGN_TALKS_MAX: a direct call to where no
 * redirected one went.
 */
__weak __noinline __u32 cgn_talk_place(const struct cgn_talks *talks, const struct cgn_call *call)
{
	__u64 best = 0, known = 0, rank;
	__u32 again;

	if (!call)
		return CGN_TALKS_MAX;
	again = cgn_talk_again(talks, call);
	if (again < CGN_TALKS_MAX)
		return again;
	for (__u32 i = 0; i < CGN_TALKS_MAX; i++) {
		rank = cgn_talk_rank(talks, i, call);
		known |= rank & CGN_RANK_KNOWN;
		best = rank > best ? rank : best;
	}
	return known || !cgn_is_direct(call) ? best % CGN_TALKS_MAX : CGN_TALKS_MAX;
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

/* How many of the last datagrams were sent at most so many ticks ago, CGN_ASKED_MAX at most: by bisection. */
__weak __noinline __u32 cgn_sent_since(const struct cgn_talks *talks, __u32 now, __u32 ticks)
{
	__u32 least = 0, most, half, sent_at;

	if (!talks)
		return 0;
	most = talks->sent < CGN_ASKED_MAX ? talks->sent : CGN_ASKED_MAX;
	for (int step = 0; step < 7 && least < most; step++) {
		half = (least + most + 1) / 2;
		sent_at = talks->sent_at[(talks->sent - half + 1) % CGN_ASKED_MAX];
		if (now - sent_at <= ticks)
			least = half;
		else
			most = half - 1;
	}
	return least;
}

/* What can be answered now. */
struct cgn_asking {
	__u32 now; /* ticks */
	__u32 open; /* the last datagrams that can be answered still, and of these */
	__u32 fresh; /* those that are not late yet */
	__u32 reserved;
};

static __always_inline void cgn_ask(struct cgn_asking *asking, const struct cgn_talks *talks)
{
	__u32 late = talks->answered_after ? talks->answered_after * CGN_LATE_FACTOR : CGN_LATE_TICKS;

	asking->now = cgn_ticks(bpf_ktime_get_boot_ns());
	asking->open = cgn_sent_since(talks, asking->now, CGN_ANSWER_TICKS);
	asking->fresh = cgn_sent_since(talks, asking->now, late > CGN_LATE_LEAST ? late : CGN_LATE_LEAST);
	asking->reserved = 0;
}

/* The questions of a talk that wait for an answer, as talk->waiting, of so many of the last datagrams. */
static __always_inline __u64 cgn_talk_waiting(const struct cgn_talks *talks, const struct cgn_talk *talk, __u32 last)
{
	__u32 later = talks->sent - talk->newest;

	return last > later ? talk->waiting & (~0ull >> (CGN_ASKED_MAX - (last - later))) : 0;
}

/* The number of the highest bit that is set; 0 if none is. */
__weak __noinline __u32 cgn_highest_bit(__u64 bits)
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

/*
 * What speaks for an answer being that of a talk; the highest number is right. All in one number, and no branches where
 * these are compared: the verifier would follow each of them. 0: it cannot be that talk's.
 */
#define CGN_CLAIM_WAITS (1ull << 62) /* some question waits, */
#define CGN_CLAIM_FRESH (1ull << 61) /* and it is not late */
#define CGN_CLAIM_AGE 8 /* from this bit on: the age of the oldest one; if none waits, how young the last one is */
#define CGN_CLAIM_RIVALS (1ull << 63) /* of the highest: others wait for answers from there too */

static __always_inline __u32 cgn_claim_place(__u64 claim)
{
	return claim % CGN_TALKS_MAX;
}

/* That of the talk at `place` to an answer from `actual`. */
__weak __noinline __u64 cgn_talk_claim(const struct cgn_talks *talks, __u32 place, const struct cgn_endpoint *actual,
				       const struct cgn_asking *asking)
{
	const struct cgn_talk *talk;
	__u64 fresh, open, later;

	if (!talks || place >= CGN_TALKS_MAX || !actual || !asking)
		return 0;
	talk = &talks->talk[place];
	if (!cgn_talk_is_with(talk, actual->family, actual->address, actual->port))
		return 0;
	later = (__u32)(talks->sent - talk->newest);
	fresh = cgn_talk_waiting(talks, talk, asking->fresh);
	if (fresh)
		return CGN_CLAIM_WAITS | CGN_CLAIM_FRESH | (later + cgn_highest_bit(fresh)) << CGN_CLAIM_AGE | place;
	open = cgn_talk_waiting(talks, talk, asking->open);
	if (open)
		return CGN_CLAIM_WAITS | (later + cgn_highest_bit(open)) << CGN_CLAIM_AGE | place;
	return ((1ull << 32) - later) << CGN_CLAIM_AGE | place;
}

/* The highest claim to an answer from `actual`; 0: there is none. */
__weak __noinline __u64 cgn_best_claim(const struct cgn_talks *talks, const struct cgn_endpoint *actual,
				       const struct cgn_asking *asking)
{
	__u64 best = 0, claim, waiting = 0;

	if (!talks || !actual)
		return 0;
	for (__u32 i = 0; i < CGN_TALKS_MAX; i++) {
		if (!cgn_talk_is_with(&talks->talk[i], actual->family, actual->address, actual->port))
			continue;
		claim = cgn_talk_claim(talks, i, actual, asking);
		waiting += claim / CGN_CLAIM_WAITS;
		best = claim > best ? claim : best;
	}
	return waiting > 1 ? best | CGN_CLAIM_RIVALS : best;
}

/* Learns how long answers take from one that can be of one question only, the last one of its talk. */
static __always_inline void cgn_talk_learn(struct cgn_talks *talks, const struct cgn_talk *talk, __u32 now)
{
	__u32 took = now - talks->sent_at[talk->newest % CGN_ASKED_MAX] + 1, usual = talks->answered_after;

	usual -= usual / 8;
	talks->answered_after = took > usual ? took : usual;
}

/*
 * Where the question was sent to that an answer from `actual` belongs to, NULL if that is not known. `stays`: the
 * answer is only looked at, and is received again.
 */
static __always_inline const struct cgn_talk *cgn_talk_take(struct cgn_talks *talks, const struct cgn_endpoint *actual,
							    bool stays)
{
	struct cgn_asking asking;
	__u64 fresh, open, claim;
	struct cgn_talk *talk;

	cgn_ask(&asking, talks);
	claim = cgn_best_claim(talks, actual, &asking);
	if (!claim)
		return NULL;
	talk = &talks->talk[cgn_claim_place(claim)];
	if (stays)
		return talk;
	fresh = cgn_talk_waiting(talks, talk, asking.fresh);
	open = cgn_talk_waiting(talks, talk, asking.open);
	if (open == 1 && !(claim & CGN_CLAIM_RIVALS))
		cgn_talk_learn(talks, talk, asking.now);
	talk->waiting = open & ~(1ull << cgn_highest_bit(fresh ?: open));
	return talk;
}

#endif
