// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of TCP connections: their tuning, and the hand-over of what a redirected client had asked for. Must not know
 * what a policy says, or who asks for the original destination.
 *
 * The client's side leaves it in cgn_handoffs before the first packet goes out, and takes it away when its connection
 * ends in whatever way; the accepting side copies it to the new socket before accept() returns that.
 */
#include "origin.bpf.h"
#include "tcp.bpf.h"
#include "view.bpf.h"

#define SOL_TCP 6
#define TCP_CONGESTION 13

/* enum of net/tcp_states.h */
#define CGN_TCP_NEW_SYN_RECV 12

/* Set before loading: jiffies a second. 0: unknown, no retransmission timeout is set. */
const volatile __u32 cgn_hz = 0;

static __always_inline void cgn_local_end(struct cgn_endpoint *end, struct bpf_sock_ops *ctx)
{
	__be16 port = bpf_htons(ctx->local_port);

	if (ctx->family == AF_INET)
		cgn_endpoint4(end, ctx->local_ip4, port);
	else
		cgn_endpoint6(end, CGN_ADDRESS6(ctx->local_ip6), port);
}

static __always_inline void cgn_remote_end(struct cgn_endpoint *end, struct bpf_sock_ops *ctx)
{
	__be16 port = bpf_htons(bpf_ntohl(ctx->remote_port));

	if (ctx->family == AF_INET)
		cgn_endpoint4(end, ctx->remote_ip4, port);
	else
		cgn_endpoint6(end, CGN_ADDRESS6(ctx->remote_ip6), port);
}

/* A client is about to connect: what it had asked for waits for the one who accepts. */
static __noinline int cgn_hand_over(struct bpf_sock_ops *ctx)
{
	struct cgn_endpoint client, server;
	struct cgn_origin origin = {};
	struct cgn_handoff_key key;
	struct cgn_peers *peers;
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !cgn_has_views())
		return 0;
	peers = bpf_sk_storage_get(&cgn_peers, sk, NULL, 0);
	if (!peers)
		return 0;
	cgn_local_end(&client, ctx);
	cgn_remote_end(&server, ctx);
	if (!cgn_is_redirected_to(&peers->now, &server))
		return 0;
	cgn_fill_key(&key, &client, &server, bpf_get_netns_cookie(ctx));
	origin.address[0] = peers->now.asked[0];
	origin.address[1] = peers->now.asked[1];
	origin.port = peers->now.asked_port;
	origin.family = peers->now.family;
	/* First the flag: nothing may be in the table that its owner's end would not take out. */
	if (!bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG))
		bpf_map_update_elem(&cgn_handoffs, &key, &origin, BPF_ANY);
	return 0;
}

/* A client's connection has ended. Other programs ask for this event too: most of these have nothing in the table. */
static __noinline int cgn_let_go(struct bpf_sock_ops *ctx)
{
	struct cgn_endpoint client, server;
	struct cgn_handoff_key key;

	if (ctx->args[1] != BPF_TCP_CLOSE || !cgn_has_views())
		return 0;
	cgn_local_end(&client, ctx);
	cgn_remote_end(&server, ctx);
	cgn_fill_key(&key, &client, &server, bpf_get_netns_cookie(ctx));
	bpf_map_delete_elem(&cgn_handoffs, &key);
	return 0;
}

static __always_inline void cgn_keep_origin(void *sk, const struct cgn_origin *origin)
{
	struct cgn_origin *kept = bpf_sk_storage_get(&cgn_origins, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (kept)
		*kept = *origin;
}

/*
 * A connection was accepted: its origin, if it was redirected, goes to the new socket, and to the MPTCP socket that it
 * is the first subflow of, which is the one that a program gets.
 */
static __noinline int cgn_take_over(struct bpf_sock_ops *ctx)
{
	struct cgn_endpoint client, server;
	struct cgn_handoff_key key;
	struct cgn_origin *origin;
	struct bpf_sock *sk = ctx->sk;
	void *whole;

	if (!sk || !cgn_has_views())
		return 0;
	cgn_local_end(&server, ctx);
	cgn_remote_end(&client, ctx);
	cgn_fill_key(&key, &client, &server, bpf_get_netns_cookie(ctx));
	origin = bpf_map_lookup_elem(&cgn_handoffs, &key);
	if (!origin)
		return 0;
	cgn_keep_origin(sk, origin);
	whole = cgn_whole_socket(sk);
	if (whole)
		cgn_keep_origin(whole, origin);
	return 0;
}

/*
 * The address of the socket that is tuned. While a connection comes in there is only a request, which the context shows
 * no socket for: its listener's cgroup counts. A program's context is the kernel's own structure.
 */
static __always_inline void *cgn_socket_of(struct bpf_sock_ops *ctx)
{
	struct bpf_sock_ops_kern *kernel_ops;
	struct sock *sk;

	if (cgn_has_rdonly_cast) {
		kernel_ops = bpf_rdonly_cast(ctx, bpf_core_type_id_kernel(struct bpf_sock_ops_kern));
		sk = kernel_ops->sk;
		return sk->__sk_common.skc_state == CGN_TCP_NEW_SYN_RECV ? sk->__sk_common.skc_listener : sk;
	}
	kernel_ops = (void *)cgn_kernel_socket(ctx);
	sk = BPF_CORE_READ(kernel_ops, sk);
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == CGN_TCP_NEW_SYN_RECV)
		return BPF_CORE_READ(sk, __sk_common.skc_listener);
	return sk;
}

/* The timeout of the first packet, in jiffies. */
static __always_inline void cgn_tune_timeout(struct bpf_sock_ops *ctx)
{
	void *sk = cgn_hz ? cgn_socket_of(ctx) : NULL;
	struct cgn_tuning tuning;

	if (sk && cgn_find_tuning(sk, &tuning) && tuning.rto_ms)
		ctx->reply = ((__u64)tuning.rto_ms * cgn_hz + 999) / 1000;
}

/* The congestion control counts from the first packet on; the window only once the kernel has set its own. */
static __always_inline void cgn_tune(struct bpf_sock_ops *ctx, bool controls, bool opens)
{
	struct cgn_tuning tuning;
	void *sk = cgn_socket_of(ctx);

	if (!sk || !cgn_find_tuning(sk, &tuning))
		return;
	if (controls && tuning.congestion[0])
		bpf_setsockopt(ctx, SOL_TCP, TCP_CONGESTION, tuning.congestion, sizeof(tuning.congestion));
	if (opens && tuning.window)
		bpf_setsockopt(ctx, SOL_TCP, TCP_BPF_IW, &tuning.window, sizeof(tuning.window));
}

SEC("sockops")
int sock_ops(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TIMEOUT_INIT:
		cgn_tune_timeout(ctx);
		break;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		cgn_hand_over(ctx);
		cgn_tune(ctx, true, false);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		cgn_tune(ctx, false, true);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		cgn_take_over(ctx);
		cgn_tune(ctx, true, true);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		cgn_let_go(ctx);
		break;
	}
	return 1;
}

char _license[] SEC("license") = "GPL";
