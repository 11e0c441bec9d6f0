// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look-ups of many keys in one BPF_PROG_TEST_RUN, each way of looking up a program of its own: nothing at all,
 * classification by one policy, a whole verdict with its count, and what others use, a hash of hosts and the kernel's
 * LPM trie. Never attached. Must not judge in any way of its own.
 */
#define CGN_DIRECTIONS (1 << CGN_DIR_EGRESS)
#include "test_call.bpf.h"
#include "tries.bpf.h"

#define LOOKUP_KEYS 65536
#define LOOKUP_GROUP 1 /* what a host with several policies puts before each address */

/* What to look up; the layout is bench/lookup.py's too. */
struct lookup_key {
	__u64 address[2]; /* as cgn_flow_key.address */
	__u16 port;
	__u8 family; /* CGN_FAMILY_* */
	__u8 proto; /* enum cgn_proto */
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOOKUP_KEYS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct lookup_key);
} lookup_keys SEC(".maps");

const volatile __u32 lookup_count = LOOKUP_KEYS;
const volatile __u64 lookup_cgroup = 0;

/* So that no answer is left out, and that tests can tell them. */
__u64 lookup_sum = 0;

struct lookup_state {
	__u64 sum;
	__u32 last;
	__u32 reserved;
};

/* A look-up waits for the answer of the one before, as the calls of one program do. */
static __always_inline const struct lookup_key *lookup_next(__u32 index, const struct lookup_state *state)
{
	/* Always 0, but the CPU must wait for it. */
	index = (index + (state->last >> 31)) & (LOOKUP_KEYS - 1);
	return bpf_map_lookup_elem(&lookup_keys, &index);
}

static __always_inline void lookup_answer(struct lookup_state *state, __u32 answer)
{
	state->last = answer & 0x7fffffff;
	state->sum += state->last;
}

/* bpf_loop() over all keys with `each`. */
#define LOOKUP_PROGRAM(name, each)                                                                                     \
	static long name##_step(__u32 index, struct lookup_state *state)                                               \
	{                                                                                                              \
		const struct lookup_key *key = lookup_next(index, state);                                              \
                                                                                                                       \
		if (!key)                                                                                              \
			return 1;                                                                                      \
		lookup_answer(state, each(key));                                                                       \
		return 0;                                                                                              \
	}                                                                                                              \
	SEC("tc")                                                                                                      \
	int name(struct __sk_buff *skb)                                                                                \
	{                                                                                                              \
		struct lookup_state state = {};                                                                        \
                                                                                                                       \
		bpf_loop(lookup_count, name##_step, &state, 0);                                                        \
		lookup_sum = state.sum;                                                                                \
		return TC_ACT_OK;                                                                                      \
	}

static __always_inline __u32 lookup_nothing(const struct lookup_key *key)
{
	return key->port;
}
LOOKUP_PROGRAM(lookup_idle, lookup_nothing)

/* The first policy of the image in slot 0: its rule reference, found from the header on. */
static __always_inline __u32 lookup_classify(const struct lookup_key *key)
{
	struct cgn_question question = {
		.address = {key->address[0], key->address[1]},
		.port = key->port,
		.family = key->family,
		.direction = CGN_DIR_EGRESS,
		.context = key->proto + CGN_PROTO_COUNT,
		.hook = CGN_HOOK_SENDMSG,
	};
	struct cgn_reader reader;
	__u32 reference = 0;
	__u64 base;

	if (cgn_read_from(&reader, 0) && cgn_read(&reader, CGN_IMAGE_HEADER + CGN_POLICY_BASE, &base))
		cgn_classify(&question, &reader, CGN_IMAGE_HEADER, CGN_HI(base), &reference);
	return reference;
}
LOOKUP_PROGRAM(lookup_classified, lookup_classify)

/* What a hook does for a call that is judged as a whole: label, verdict, count. A function by itself, for its stack. */
__weak __noinline __u32 lookup_judge(__u64 high, __u64 low, __u32 port, __u8 family, __u8 proto)
{
	struct cgn_test test = {
		.task_id = lookup_cgroup,
		.socket_id = lookup_cgroup,
		.address = {high, low},
		.port = port,
		.hook = CGN_HOOK_SENDMSG,
		.family = family,
		.proto = proto,
	};
	struct cgn_call call;

	cgn_test_call(&call, &test);
	if (!cgn_test_identify(&call, &test))
		return 0;
	cgn_decide(&call, NULL);
	cgn_count(&call);
	return CGN_CELL_ID(call.rule);
}

static __always_inline __u32 lookup_verdict(const struct lookup_key *key)
{
	return lookup_judge(key->address[0], key->address[1], key->port, key->family, key->proto);
}
LOOKUP_PROGRAM(lookup_judged, lookup_verdict)

static __always_inline __u32 lookup_elsewhere(const struct lookup_key *key)
{
	return tries_find(LOOKUP_GROUP, key->family, key->address[0], key->address[1]);
}
LOOKUP_PROGRAM(lookup_lpm, lookup_elsewhere)

char _license[] SEC("license") = "GPL";
