# SPDX-License-Identifier: Apache-2.0
"""What this kernel offers of what the programs can use, found by doing, and what each missing part costs.

Must not compare kernel versions and must not know policies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from cgnetd.errors import KernelError
from cgnetd.kernel.failure import kernel_error
from pybpf import BpfError
from pybpf import probe as bpf_probe


@dataclass(frozen=True, slots=True)
class Features:
    btf: bool
    sock_addr: bool
    ringbuf: bool
    sk_storage: bool
    inner_map: bool
    set_retval: bool
    rdonly_cast: bool
    sock_ops: bool
    getsockopt: bool
    unix_hooks: bool
    sock_destroy: bool

    def missing(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self) if not getattr(self, field.name))

    def rodata(self) -> dict[str, int]:
        """What the programs are told of the kernel at load. Not every object has every name."""
        return {
            "cgn_has_set_retval": int(self.set_retval),
            "cgn_has_rdonly_cast": int(self.rdonly_cast),
            "cgn_hz": ticks_a_second(),
        }

    def lacking_hooks(self) -> frozenset[str]:
        """Names of the hooks (see hooks.HOOKS) that this kernel has no place for."""
        return frozenset(hook for name in self.missing() for hook in _HOOKS.get(name, ()))


REQUIRED = ("btf", "sock_addr", "ringbuf", "sk_storage", "inner_map")

COSTS = {
    "btf": "no enforcement: the programs need the kernel's types (CONFIG_DEBUG_INFO_BTF=y, /sys/kernel/btf/vmlinux)",
    "sock_addr": "no enforcement: no programs on connect, sendmsg and bind (CONFIG_CGROUP_BPF=y)",
    "ringbuf": "no enforcement: audit events need BPF ring buffers (Linux 5.8)",
    "sk_storage": "no enforcement: ports picked by the kernel need socket storage (Linux 5.2)",
    "inner_map": "no enforcement: generations of different sizes need BPF_F_INNER_MAP (Linux 5.10)",
    "set_retval": "a denied call fails with EPERM whatever errno its rule names (Linux 5.18 has bpf_set_retval)",
    "rdonly_cast": "speed only: a socket's cgroup is read by bpf_probe_read_kernel (Linux 6.2 has bpf_rdonly_cast)",
    "sock_ops": "no `tcp` settings, no SO_ORIGINAL_DST for redirected connections (CONFIG_CGROUP_BPF=y, Linux 4.13)",
    "getsockopt": "no SO_ORIGINAL_DST for redirected connections (CONFIG_CGROUP_BPF=y, Linux 5.3)",
    "unix_hooks": "no rules with `unix`: no programs on calls to UNIX sockets (Linux 6.7)",
    "sock_destroy": "speed only: flows to lost backends are closed by sock_diag (Linux 6.5 has bpf_sock_destroy)",
}

_PROBES: dict[str, Callable[[], bool]] = {
    "btf": bpf_probe.has_btf,
    "sock_addr": bpf_probe.has_sock_addr,
    "ringbuf": bpf_probe.has_ringbuf,
    "sk_storage": bpf_probe.has_sk_storage,
    "inner_map": bpf_probe.has_inner_map,
    "set_retval": bpf_probe.has_set_retval,
    "rdonly_cast": bpf_probe.has_rdonly_cast,
    "sock_ops": bpf_probe.has_sock_ops,
    "getsockopt": bpf_probe.has_getsockopt,
    "unix_hooks": bpf_probe.has_unix_hooks,
    "sock_destroy": bpf_probe.has_sock_destroy,
}

_HOOKS: dict[str, tuple[str, ...]] = {
    "sock_ops": ("sock_ops",),
    "getsockopt": ("getsockopt",),
    "unix_hooks": ("connect_unix", "sendmsg_unix", "recvmsg_unix", "getpeername_unix"),
}

_CLOCK_MONOTONIC_COARSE = 6  # <linux/time.h>


def probe() -> Features:
    """Try everything (about 70 ms). PrivilegeError without CAP_BPF and CAP_PERFMON."""
    try:
        return Features(**{name: has() for name, has in _PROBES.items()})
    except BpfError as error:
        raise kernel_error("probe the kernel's features", error) from error
    except OSError as error:
        raise KernelError(f"load libbpf: {error}; install the package libbpf1") from error


def ticks_a_second() -> int:
    """The kernel's CONFIG_HZ: jiffies a second, which is what the coarse clocks move by."""
    return round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))


def require(features: Features) -> None:
    """KernelError naming everything without which nothing can be enforced."""
    lacking = [f"{name}: {COSTS[name]}" for name in REQUIRED if name in features.missing()]
    if lacking:
        raise KernelError("use this kernel: " + "; ".join(lacking))
