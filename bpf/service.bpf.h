/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which backend of a service a call goes to: one that is alive, at random by the weights, or the one that the task's
 * cgroup had before. Must not know of rules or verdicts.
 */
#ifndef CGNETD_SERVICE_BPF_H
#define CGNETD_SERVICE_BPF_H

#include "effect.bpf.h"

#define CGN_AIM_CORRUPT (-1)
#define CGN_AIM_SERVICE (-2)

/* The backends of one family of a service: numbers of cells in the image and among the live ones. */
struct cgn_backends {
	__u32 first;
	__u32 count;
	__u32 choices;
	__u32 states;
};

static __always_inline bool cgn_backends_of(void *image, __u32 record, __u8 family, struct cgn_backends *backends)
{
	__u32 at = record + (family == CGN_FAMILY_V4 ? CGN_SERVICE_V4 : CGN_SERVICE_V6);
	__u64 place, live;

	if (!cgn_cell(image, at, &place) || !cgn_cell(image, at + 1, &live))
		return false;
	backends->first = CGN_HI(place);
	backends->count = CGN_LO(place);
	backends->choices = CGN_HI(live);
	backends->states = CGN_LO(live);
	return true;
}

/* CGN_BACKEND_KEY of a backend, 0 if there is none. */
static __always_inline __u64 cgn_backend_key(void *image, const struct cgn_backends *backends, __u32 index)
{
	__u64 key;

	if (index >= backends->count ||
	    !cgn_cell(image, backends->first + index * CGN_BACKEND_CELLS + CGN_BACKEND_KEY, &key))
		return 0;
	return key;
}

/* The index of the backend with a key, one more than it is; 0: there is none. */
__weak __noinline __u32 cgn_backend_with_key(__u32 slot, __u32 first, __u32 count, __u64 wanted)
{
	void *image = cgn_image(slot);
	__u64 key;

	if (!image)
		return 0;
	for (__u32 i = 0; i < CGN_BACKENDS_MAX && i < count; i++) {
		if (!cgn_cell(image, first + i * CGN_BACKEND_CELLS + CGN_BACKEND_KEY, &key))
			return 0;
		if (key == wanted)
			return i + 1;
	}
	return 0;
}

/* The backend that the cgroup sticks to, one more than its index; 0: none, or not any more. A reload can have moved
 * it. */
static __always_inline __u32 cgn_stuck_to(const struct cgn_call *call, void *image, const struct cgn_backends *backends,
					  const struct cgn_sticky_key *key, __u64 lasts_ns)
{
	struct cgn_sticky_value *stuck = bpf_map_lookup_elem(&cgn_sticky, key);
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 index;

	if (!stuck || stuck->expires_ns <= now)
		return 0;
	index = stuck->index;
	if (cgn_backend_key(image, backends, index) != stuck->backend) {
		index = cgn_backend_with_key(call->slot, backends->first, backends->count, stuck->backend);
		if (!index)
			return 0;
		stuck->index = --index;
	}
	if (cgn_live_cell(call->slot, backends->states + index) != 1)
		return 0;
	stuck->expires_ns = now + lasts_ns;
	return index + 1;
}

/* A backend that is alive, by the weights; one more than its index, 0: none is. */
static __always_inline __u32 cgn_choose(const struct cgn_call *call, const struct cgn_backends *backends)
{
	__u32 choice = bpf_get_prandom_u32() & (CGN_CHOICES - 1);
	__u64 chosen = cgn_live_cell(call->slot, backends->choices + choice);

	return chosen <= backends->count ? chosen : 0;
}

static __always_inline __u32 cgn_choose_and_stick(const struct cgn_call *call, void *image,
						  const struct cgn_backends *backends, __u64 service, __u64 lasts_ns)
{
	struct cgn_sticky_key key = {.cgroup_id = call->task_id, .service = service, .family = call->family};
	struct cgn_sticky_value value = {};
	__u32 chosen = cgn_stuck_to(call, image, backends, &key, lasts_ns);

	if (chosen)
		return chosen;
	chosen = cgn_choose(call, backends);
	if (!chosen)
		return 0;
	value.index = chosen - 1;
	value.backend = cgn_backend_key(image, backends, value.index);
	value.expires_ns = bpf_ktime_get_boot_ns() + lasts_ns;
	bpf_map_update_elem(&cgn_sticky, &key, &value, BPF_ANY);
	return chosen;
}

/*
 * Chooses a backend of the service whose id call->service is into call->target; call->service becomes its key. Returns
 * 0, the errno of a call that finds none, or CGN_AIM_CORRUPT.
 */
__weak __noinline int cgn_aim_at_service(struct cgn_call *call)
{
	__u64 services, flags, lasts_ns, port;
	struct cgn_backends backends;
	__u32 record, chosen, at;
	void *image;

	if (!call)
		return CGN_AIM_CORRUPT;
	image = cgn_image(call->slot);
	if (!image || !cgn_cell(image, CGN_IMAGE_SERVICES, &services) || call->service >= CGN_LO(services))
		return CGN_AIM_CORRUPT;
	record = CGN_HI(services) + (__u32)call->service * CGN_SERVICE_CELLS;
	if (!cgn_cell(image, record + CGN_SERVICE_FLAGS, &flags) || !CGN_LO(flags) || CGN_LO(flags) > 255 ||
	    !cgn_cell(image, record + CGN_SERVICE_KEY, &call->service) ||
	    !cgn_cell(image, record + CGN_SERVICE_STICKY_NS, &lasts_ns) ||
	    !cgn_backends_of(image, record, call->family, &backends))
		return CGN_AIM_CORRUPT;
	chosen = lasts_ns ? cgn_choose_and_stick(call, image, &backends, call->service, lasts_ns)
			  : cgn_choose(call, &backends);
	if (!chosen)
		return CGN_LO(flags);
	at = backends.first + (chosen - 1) * CGN_BACKEND_CELLS;
	if (!cgn_cell(image, at + CGN_BACKEND_ADDRESS, &call->target[0]) ||
	    !cgn_cell(image, at + CGN_BACKEND_ADDRESS + 1, &call->target[1]) ||
	    !cgn_cell(image, at + CGN_BACKEND_PORT, &port))
		return CGN_AIM_CORRUPT;
	call->target_port = CGN_LO(port) ?: call->port;
	return 0;
}

#endif
