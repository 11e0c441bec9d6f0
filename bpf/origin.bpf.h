/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a redirected client to the socket that accepts its connection: the table between them. Must not know policies,
 * or what asks for the origin.
 */
#ifndef CGNETD_ORIGIN_BPF_H
#define CGNETD_ORIGIN_BPF_H

#include "endpoint.bpf.h"
#include "maps.bpf.h"

/* Whether there can be anything of ours to look for. */
static __always_inline bool cgn_has_views(void)
{
	struct cgn_control *control;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(&cgn_control, &zero);
	return control && control->flags & CGN_CONTROL_VIEWS;
}

/* The key of the connection between two endpoints, in the network namespace with this cookie. */
static __always_inline void cgn_fill_key(struct cgn_handoff_key *key, const struct cgn_endpoint *client,
					 const struct cgn_endpoint *server, __u64 netns)
{
	key->netns = netns;
	key->client[0] = client->address[0];
	key->client[1] = client->address[1];
	key->server[0] = server->address[0];
	key->server[1] = server->address[1];
	key->client_port = client->port;
	key->server_port = server->port;
	key->family = server->family;
}

/* Whether the view is of a redirected connection, to this server. */
static __always_inline bool cgn_is_redirected_to(const struct cgn_view *view, const struct cgn_endpoint *server)
{
	if (view->family != server->family || view->actual_port != server->port ||
	    view->actual[0] != server->address[0] || view->actual[1] != server->address[1])
		return false;
	return view->asked_port != view->actual_port || view->asked[0] != view->actual[0] ||
	       view->asked[1] != view->actual[1];
}

#endif
