/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Views: what a program sees of its rewritten sockets, kept with the socket. Part of the contract, included by
 * cgnetd/abi.h.
 */
#ifndef CGNETD_VIEWS_H
#define CGNETD_VIEWS_H

#ifndef __bpf__
#include <linux/types.h>
#endif

struct cgn_view { /* a peer or a local address: as the program asked for it, and as it is */
	__u64 asked[2]; /* as cgn_flow_key.address */
	__u64 actual[2];
	__u64 service; /* CGN_SERVICE_KEY of the service, 0 if it is none's */
	__u16 asked_port;
	__u16 actual_port;
	__u8 family; /* of both; 0: no view */
	__u8 reserved[3];
};

struct cgn_peers { /* cgn_peers: of connect() */
	struct cgn_view now;
	struct cgn_view before; /* the one before: a connect() that fails leaves the old peer in place */
};

struct cgn_origin { /* cgn_origins: what the client of an accepted connection had asked for */
	__u64 address[2];
	__u16 port;
	__u8 family; /* 0: unknown */
	__u8 reserved[5];
};

_Static_assert(sizeof(struct cgn_view) == 48, "cgn_view");
_Static_assert(sizeof(struct cgn_peers) == 96, "cgn_peers");
_Static_assert(sizeof(struct cgn_origin) == 24, "cgn_origin");

#endif
