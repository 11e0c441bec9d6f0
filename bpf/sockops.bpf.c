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

#define SOL_TCP 6
#define TCP_CONGESTION 13

/* enum of net/tcp_states.h */
#define CGN_TCP_NEW_SYN_RECV 12

/* Set before loading: jiffies a second. 0: unknown, no retransmission timeout is set. */
const volatile __u32 cgn_hz = 0;

/* The tuple of a connection, from this side: as client or as server. */
static __always_inline void cgn_fill_key(struct cgn_handoff_key *key, struct bpf_sock_ops *ctx, bool is_client)
{
	__u32 family = ctx->family;
	__u64 *local = is_client ? key->client : key->server, *remote = is_client ? key->server : key->client;
	__u16 local_port = ctx->local_port, remote_port = bpf_ntohl(ctx->remote_port);

	cgn_widen(local, family, ctx->local_ip4, CGN_WORDS(ctx->local_ip6));
	key->family = cgn_widen(remote, family, ctx->remote_ip4, CGN_WORDS(ctx->remote_ip6));
	key->client_port = is_client ? local_port : remote_port;
	key->server_port = is_client ? remote_port : local_port;
	key->netns = bpf_get_netns_cookie(ctx);
}

/* A client is about to connect: what it had asked for waits for the one who accepts. */
static __always_inline void cgn_hand_over(struct bpf_sock_ops *ctx)
{
	struct cgn_origin origin = {};
	struct cgn_handoff_key key;
	struct cgn_peers *peers;
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !cgn_has_views())
		return;
	peers = bpf_sk_storage_get(&cgn_peers, sk, NULL, 0);
	if (!peers)
		return;
	cgn_fill_key(&key, ctx, true);
	if (!cgn_is_redirected_to(&peers->now, &key))
		return;
	origin.address[0] = peers->now.asked[0];
	origin.address[1] = peers->now.asked[1];
	origin.port = peers->now.asked_port;
	origin.family = peers->now.family;
	/* First the flag: nothing may be in the table that its owner's end would not take out. */
	if (!bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG))
		bpf_map_update_elem(&cgn_handoffs, &key, &origin, BPF_ANY);
}

/* A client's connection has ended. Other programs ask for this event too: most of these have nothing in the table. */
static __always_inline void cgn_let_go(struct bpf_sock_ops *ctx)
{
	struct cgn_handoff_key key;

	if (ctx->args[1] != BPF_TCP_CLOSE || !cgn_has_views())
		return;
	cgn_fill_key(&key, ctx, true);
	bpf_map_delete_elem(&cgn_handoffs, &key);
}

/* A connection was accepted: its origin, if it was redirected, goes to the new socket. */
static __always_inline void cgn_take_over(struct bpf_sock_ops *ctx)
{
	struct cgn_origin *origin, *kept;
	struct cgn_handoff_key key;
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !cgn_has_views())
		return;
	cgn_fill_key(&key, ctx, false);
	origin = bpf_map_lookup_elem(&cgn_handoffs, &key);
	if (!origin)
		return;
	kept = bpf_sk_storage_get(&cgn_origins, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (kept)
		*kept = *origin;
}

/*
 * The address of the socket that is tuned. While a connection comes in there is only a request, which the context shows
 * no socket for: its listener's cgroup counts. A program's context is the kernel's own structure.
 */
static __always_inline void *cgn_socket_of(struct bpf_sock_ops *ctx)
{
	struct bpf_sock_ops_kern *kernel_ops = (void *)cgn_kernel_socket(ctx);
	struct sock *sk = BPF_CORE_READ(kernel_ops, sk);

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
