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

#define CGN_ANSWER_NS 5000000000ull /* a question that is older has no answer any more */

_Static_assert(sizeof(struct cgn_talk) == 64 && sizeof(struct cgn_talks) == 8 + CGN_TALKS_MAX * 64, "cgn_talks");

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

/*
 * The talk of a call to call->target, or the one to be replaced by it: a free one, else the one that was quiet for the
 * longest. CGN_TALKS_MAX: a direct call to where no redirected one went.
 */
__noinline __u32 cgn_talk_place(const struct cgn_talks *talks, const struct cgn_call *call)
{
	__u64 longest = ~0ull, quiet_since;
	__u32 place = CGN_TALKS_MAX;
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
		quiet_since = talk->family ? talk->sent_ns : 0;
		if (quiet_since < longest) {
			longest = quiet_since;
			place = i;
		}
	}
	return is_known || !cgn_is_direct(call) ? place : CGN_TALKS_MAX;
}

/* Notes a datagram from call->address to call->target. */
static __always_inline void cgn_talk_note(struct cgn_talks *talks, const struct cgn_call *call)
{
	__u32 place = cgn_talk_place(talks, call);
	__u64 now = bpf_ktime_get_boot_ns();
	struct cgn_talk *talk;

	if (place >= CGN_TALKS_MAX)
		return;
	talk = &talks->talk[place];
	if (!cgn_talk_is_with(talk, call->family, call->target, call->target_port) || !cgn_talk_asked(talk, call) ||
	    now - talk->sent_ns > CGN_ANSWER_NS)
		talk->unanswered = 0;
	talk->family = call->family;
	talk->asked[0] = call->address[0];
	talk->asked[1] = call->address[1];
	talk->asked_port = call->port;
	talk->actual[0] = call->target[0];
	talk->actual[1] = call->target[1];
	talk->actual_port = call->target_port;
	talk->sent_ns = now;
	talk->newest = ++talks->sent;
	if (!talk->unanswered++)
		talk->oldest = talk->newest;
}

/* Whether `talk` rather than `other` is the one that an answer at `now` belongs to. */
static __always_inline bool cgn_talk_is_better(const struct cgn_talk *talk, const struct cgn_talk *other, __u64 now)
{
	bool waits = talk->unanswered && now - talk->sent_ns <= CGN_ANSWER_NS;
	bool other_waits = other->unanswered && now - other->sent_ns <= CGN_ANSWER_NS;

	if (waits && other_waits)
		return (__s32)(talk->oldest - other->oldest) < 0;
	return waits == other_waits ? talk->sent_ns > other->sent_ns : waits;
}

/* The talk that an answer from `actual` belongs to; CGN_TALKS_MAX: none. */
__noinline __u32 cgn_talk_of(const struct cgn_talks *talks, const struct cgn_endpoint *actual, __u64 now)
{
	__u32 best = CGN_TALKS_MAX;

	if (!talks || !actual)
		return CGN_TALKS_MAX;
	for (__u32 i = 0; i < CGN_TALKS_MAX; i++) {
		const struct cgn_talk *talk = &talks->talk[i];

		if (!cgn_talk_is_with(talk, actual->family, actual->address, actual->port))
			continue;
		if (best >= CGN_TALKS_MAX || cgn_talk_is_better(talk, &talks->talk[best], now))
			best = i;
	}
	return best;
}

/* Takes an answer from `actual`; where its question was sent to, NULL if that is not known. */
static __always_inline const struct cgn_talk *cgn_talk_take(struct cgn_talks *talks, const struct cgn_endpoint *actual)
{
	__u32 place = cgn_talk_of(talks, actual, bpf_ktime_get_boot_ns());
	struct cgn_talk *talk;

	if (place >= CGN_TALKS_MAX)
		return NULL;
	talk = &talks->talk[place];
	if (talk->unanswered) {
		talk->unanswered--;
		/* Exact if none or one is left; of more, only the newest one's number is known. */
		talk->oldest = talk->unanswered == 1 ? talk->newest : talk->oldest + 1;
	}
	return talk;
}

#endif
