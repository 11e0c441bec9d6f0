// SPDX-License-Identifier: GPL-2.0-only
/*
 * connect() and sendmsg() to UNIX sockets by name, and the name that a redirected one sees of its peer. Must not know
 * what a policy says.
 *
 * Names are judged as they are given: a symbolic link is not followed. A socket keeps one pair of names, of the last
 * call that was redirected: of several peers of one datagram socket the others show under their own names.
 */
#define CGN_DIRECTIONS (1 << CGN_DIR_UNIX)
#include "caller.bpf.h"
#include "hook.bpf.h"
#include "unix.bpf.h"

#define SOCK_DGRAM 2

#define CGN_ENOMEM 12

/*
 * The name that a call is judged by: there is no room for it on the stack beside the rest. Its socket is locked as long
 * as these programs run. Of this object alone, and nothing is kept here from one call to the next.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cgn_name);
} judged_names SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct unix_sock {
	struct sock *peer;
};

#pragma clang attribute pop

static __always_inline void cgn_set_name(struct cgn_call *call, enum cgn_hook hook, const struct cgn_name *name)
{
	call->hook = hook;
	call->family = CGN_FAMILY_UNIX;
	call->direction = CGN_DIR_UNIX;
	call->context = hook;
	call->address[1] = cgn_hash_name(name);
}

/* Sends the call on to `name`, which is the one that the program gave afterwards. call->rule denies if it cannot. */
static __noinline int cgn_redirect(struct bpf_sock_addr *ctx, struct cgn_call *call, struct cgn_name *name)
{
	struct cgn_names *names = cgn_names_of(ctx->sk, true);

	if (!names) {
		cgn_fail(call, CGN_ENOMEM, CGN_REASON_NO_MEMORY);
		cgn_read_name(name, ctx);
		return 0;
	}
	cgn_copy_name(names->actual, &names->actual_length, name);
	cgn_read_name(name, ctx);
	cgn_copy_name(names->asked, &names->asked_length, name);
	if (!cgn_write_name(ctx, names->actual, names->actual_length))
		call->rule = call->shadow = CGN_CELL_CORRUPT;
	return 0;
}

/* A call that goes where it says, on a socket that was redirected before: from now on it shows that. */
static __noinline int cgn_go_direct(struct bpf_sock_addr *ctx, bool connects)
{
	struct cgn_names *names = cgn_names_of(ctx->sk, false);
	struct cgn_name name;

	if (!names || !cgn_read_name(&name, ctx))
		return 0;
	if (connects)
		cgn_copy_name(names->actual, &names->actual_length, &name);
	else if (!cgn_is_same_name(&name, names->actual, names->actual_length))
		return 0;
	cgn_copy_name(names->asked, &names->asked_length, &name);
	return 0;
}

/* What no rule says anything of leaves nothing, not even a count. */
static __always_inline bool cgn_is_decided(const struct cgn_call *call)
{
	return CGN_CELL_ID(call->rule) != CGN_RULE_DEFAULT || CGN_CELL_ID(call->shadow) != CGN_RULE_DEFAULT;
}

/* Whether any policy of the task's cgroup has rules on names. */
__weak __noinline int cgn_has_unix_rules(const struct cgn_call *call)
{
	void *image;
	__u64 flags;

	if (!call)
		return true;
	image = cgn_image(call->slot);
	for (__u32 i = 0; image && i < CGN_CHAIN_MAX && i < call->label.governing; i++) {
		__u32 header = CGN_IMAGE_HEADER + call->label.policy[i] * CGN_POLICY_CELLS;

		if (!cgn_cell(image, header + CGN_POLICY_FLAGS, &flags) || CGN_HI(flags) & CGN_POLICY_UNIX)
			return true;
	}
	return !image;
}

/* Whether there is anything to judge the name by. */
static __always_inline bool cgn_asks_for_name(const struct cgn_call *call)
{
	return call->judge_id || call->standing != CGN_STANDING_GOVERNED || call->label.flags ||
	       cgn_has_unix_rules(call);
}

/* The verdict on a name. The name in the context is another one afterwards if call->rule rewrites. */
static __always_inline int cgn_judge_name(struct bpf_sock_addr *ctx, struct cgn_call *call, enum cgn_hook hook)
{
	struct cgn_name *name = bpf_sk_storage_get(&judged_names, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!name) {
		call->rule = call->shadow = CGN_CELL_UNDECIDED;
		cgn_fail(call, CGN_ENOMEM, CGN_REASON_NO_MEMORY);
		return cgn_conclude(call, NULL);
	}
	if (!cgn_read_name(name, ctx))
		return CGN_PROCEED; /* the kernel refuses it */
	cgn_set_name(call, hook, name);
	cgn_decide(call, name);
	if (!cgn_is_decided(call))
		return CGN_PROCEED;
	if (cgn_rewrites(call->rule))
		cgn_redirect(ctx, call, name);
	else if (cgn_is_event(call))
		cgn_read_name(name, ctx); /* it can be a target's */
	return cgn_conclude(call, name);
}

static __always_inline int cgn_enforce_name(struct bpf_sock_addr *ctx, enum cgn_hook hook)
{
	struct cgn_call call;
	bool views, begun;

	begun = cgn_begin_seeing(&call, ctx->sk, &views);
	if (begun && !cgn_identify(&call, ctx->sk)) {
		cgn_remember_quiet(&call);
		begun = false;
	}
	if (begun && cgn_asks_for_name(&call) && cgn_judge_name(ctx, &call, hook) == CGN_DENY)
		return CGN_DENY;
	if (views && !(begun && cgn_rewrites(call.rule)))
		cgn_go_direct(ctx, hook == CGN_HOOK_CONNECT);
	return CGN_PROCEED;
}

SEC("cgroup/connect_unix")
int connect_unix(struct bpf_sock_addr *ctx)
{
	return cgn_enforce_name(ctx, CGN_HOOK_CONNECT);
}

SEC("cgroup/sendmsg_unix")
int sendmsg_unix(struct bpf_sock_addr *ctx)
{
	return cgn_enforce_name(ctx, CGN_HOOK_SENDMSG);
}

/* Shows what was asked for in place of where it went. */
static __noinline int cgn_show(struct bpf_sock_addr *ctx, const struct cgn_names *names)
{
	struct cgn_name name;

	if (cgn_read_name(&name, ctx) && cgn_is_same_name(&name, names->actual, names->actual_length))
		cgn_write_name(ctx, names->asked, names->asked_length);
	return 0;
}

SEC("cgroup/recvmsg_unix")
int recvmsg_unix(struct bpf_sock_addr *ctx)
{
	struct cgn_names *names = cgn_names_of(ctx->sk, false);

	if (names)
		cgn_show(ctx, names);
	return CGN_PROCEED;
}

/* Of the calling socket, which is connected to ctx->sk for life. False: ctx->sk has been closed and knows no more. */
static __always_inline bool cgn_show_to_peer(struct bpf_sock_addr *ctx)
{
	struct unix_sock *shown = bpf_skc_to_unix_sock(ctx->sk);
	struct sock *caller = shown ? shown->peer : NULL;
	struct cgn_names *names = caller ? cgn_names_of(caller, false) : NULL;

	if (names)
		cgn_show(ctx, names);
	return caller;
}

/* Many datagram sockets can be connected to ctx->sk: which one asks is what the system call was given. */
static __noinline int cgn_show_to_caller(struct bpf_sock_addr *ctx)
{
	struct sock *caller = cgn_called_socket();
	struct cgn_names names;
	void *kept;

	if (BPF_CORE_READ((struct unix_sock *)caller, peer) != cgn_kernel_socket(ctx->sk))
		return 0;
	kept = cgn_find_storage(caller, &cgn_names);
	if (kept && !bpf_probe_read_kernel(&names, sizeof(names), kept))
		cgn_show(ctx, &names);
	return 0;
}

/* Runs with the peer's socket: for one that can have many, the caller's has to be found. */
SEC("cgroup/getpeername_unix")
int getpeername_unix(struct bpf_sock_addr *ctx)
{
	if (ctx->type == SOCK_DGRAM || !cgn_show_to_peer(ctx))
		cgn_show_to_caller(ctx);
	return CGN_PROCEED;
}

char _license[] SEC("license") = "GPL";
