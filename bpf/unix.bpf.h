/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Names in the contexts of calls to UNIX sockets, and what is kept of them with the socket. Must not know of verdicts.
 *
 * A context does not show the name: it is read from the kernel's own copy of the address, and written by the one
 * function that the kernel has for it (6.7, as these hooks).
 */
#ifndef CGNETD_UNIX_BPF_H
#define CGNETD_UNIX_BPF_H

#include "identity.bpf.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_sock_addr_kern {
	void *uaddr;
	__u32 uaddrlen;
};

#pragma clang attribute pop

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;
extern int bpf_sock_addr_set_sun_path(struct bpf_sock_addr_kern *sa_kern, const __u8 *sun_path,
				      __u32 sun_path__sz) __ksym __weak;

#define CGN_SUN_PATH 2 /* where the name begins in struct sockaddr_un */

/*
 * A length that is in range already, at most that of a name and a NUL. Older verifiers lose sight of its bounds where
 * clang tests another copy of it than it uses.
 */
static __always_inline __u32 cgn_bounded(__u32 length)
{
	barrier_var(length);
	return length <= CGN_UNIX_NAME_MAX + 1 ? length : 0;
}

/* Reads the name of a context: a path up to its NUL, an abstract name whole. False: there is none. */
static __always_inline bool cgn_read_name(struct cgn_name *name, struct bpf_sock_addr *ctx)
{
	/* A program's context is the kernel's own structure. */
	struct bpf_sock_addr_kern *kernel_ctx = (void *)cgn_kernel_socket(ctx);
	const char *bytes = (const char *)BPF_CORE_READ(kernel_ctx, uaddr) + CGN_SUN_PATH;
	__u32 length = BPF_CORE_READ(kernel_ctx, uaddrlen) - CGN_SUN_PATH;
	long copied;

	__builtin_memset(name, 0, sizeof(*name));
	if (!length || length > CGN_UNIX_NAME_MAX || bpf_probe_read_kernel(name->bytes, 1, bytes))
		return false;
	name->length = length;
	if (!name->bytes[0])
		return !bpf_probe_read_kernel(name->bytes, cgn_bounded(length), bytes);
	copied = bpf_probe_read_kernel_str(name->bytes, cgn_bounded(length + 1), bytes);
	if (copied < 2)
		return false;
	name->length = copied - 1;
	return true;
}

/* Makes a name that of a context. A path ends in a NUL if there is room, as the kernel itself has it. */
static __always_inline bool cgn_write_name(struct bpf_sock_addr *ctx, const char *bytes, __u32 length)
{
	if (bytes[0] && length < CGN_UNIX_NAME_MAX)
		length++;
	if (!length || length > CGN_UNIX_NAME_MAX)
		return false;
	return !bpf_sock_addr_set_sun_path(bpf_cast_to_kern_ctx(ctx), (const __u8 *)bytes, cgn_bounded(length));
}

/* Both have NULs behind them. */
static __always_inline bool cgn_is_same_name(const struct cgn_name *name, const char *bytes, __u32 length)
{
	const __u32 *left = (const __u32 *)name->bytes, *right = (const __u32 *)bytes;
	__u32 differ = name->length ^ length;

	for (__u32 i = 0; i < CGN_UNIX_NAME_BYTES / sizeof(*left); i++)
		differ |= left[i] ^ right[i];
	return !differ;
}

/* FNV-1a, by words: what tells one name from another in an event's key. */
static __always_inline __u64 cgn_hash_name(const struct cgn_name *name)
{
	const __u32 *words = (const __u32 *)name->bytes;
	__u64 hash = 0xcbf29ce484222325ull ^ name->length;

	for (__u32 i = 0; i < CGN_UNIX_NAME_BYTES / sizeof(*words); i++)
		hash = (hash ^ words[i]) * 0x100000001b3ull;
	return hash;
}

static __always_inline struct cgn_names *cgn_names_of(void *sk, bool create)
{
	return bpf_sk_storage_get(&cgn_names, sk, NULL, create ? BPF_SK_STORAGE_GET_F_CREATE : 0);
}

static __always_inline void cgn_copy_name(char *to, __u32 *length, const struct cgn_name *name)
{
	__builtin_memcpy(to, name->bytes, CGN_UNIX_NAME_BYTES);
	*length = name->length;
}

#endif
