/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether a program that is shown a datagram will be shown it again: recvmsg() with MSG_PEEK, which the hook is not
 * told of. Read without a lock: threads that receive on one socket at a time can be mistaken for that. Must not know
 * whose the datagram is.
 */
#ifndef CGNETD_QUEUE_BPF_H
#define CGNETD_QUEUE_BPF_H

#include "kernel_types.bpf.h"
#include <stdbool.h>
#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct refcount_struct {
	atomic_t refs;
} refcount_t;

struct sk_buff {
	refcount_t users;
};

struct sk_buff_head {
	struct sk_buff *next;
};

struct udp_sock {
	struct sk_buff_head reader_queue;
};

#pragma clang attribute pop

/* A datagram that is received has left the queue; the next one there has the queue for its only user. */
static __always_inline bool cgn_is_peeked(void *sk)
{
	struct udp_sock *udp = (void *)cgn_kernel_socket(sk);
	struct sk_buff *first = BPF_CORE_READ(udp, reader_queue.next);
	void *queue = (void *)udp + bpf_core_field_offset(struct udp_sock, reader_queue);

	return first != queue && BPF_CORE_READ(first, users.refs.counter) > 1;
}

#endif
