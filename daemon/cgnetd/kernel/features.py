# SPDX-License-Identifier: Apache-2.0
"""What this kernel offers of what the programs can use, found by doing, and what each missing part costs.

Must not compare kernel versions and must not know policies.
"""

from __future__ import annotations

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

    def missing(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self) if not getattr(self, field.name))

    def rodata(self) -> dict[str, int]:
        """What the programs are told of the kernel at load."""
        return {"cgn_has_set_retval": int(self.set_retval), "cgn_has_rdonly_cast": int(self.rdonly_cast)}


REQUIRED = ("btf", "sock_addr", "ringbuf", "sk_storage", "inner_map")

COSTS = {
    "btf": "no enforcement: the programs need the kernel's types (CONFIG_DEBUG_INFO_BTF=y, /sys/kernel/btf/vmlinux)",
    "sock_addr": "no enforcement: no programs on connect, sendmsg and bind (CONFIG_CGROUP_BPF=y)",
    "ringbuf": "no enforcement: audit events need BPF ring buffers (Linux 5.8)",
    "sk_storage": "no enforcement: ports picked by the kernel need socket storage (Linux 5.2)",
    "inner_map": "no enforcement: generations of different sizes need BPF_F_INNER_MAP (Linux 5.10)",
    "set_retval": "a denied call fails with EPERM whatever errno its rule names (Linux 5.18 has bpf_set_retval)",
    "rdonly_cast": "speed only: a socket's cgroup is read by bpf_probe_read_kernel (Linux 6.2 has bpf_rdonly_cast)",
}

_PROBES: dict[str, Callable[[], bool]] = {
    "btf": bpf_probe.has_btf,
    "sock_addr": bpf_probe.has_sock_addr,
    "ringbuf": bpf_probe.has_ringbuf,
    "sk_storage": bpf_probe.has_sk_storage,
    "inner_map": bpf_probe.has_inner_map,
    "set_retval": bpf_probe.has_set_retval,
    "rdonly_cast": bpf_probe.has_rdonly_cast,
}


def probe() -> Features:
    """Try everything (about 20 ms). PrivilegeError without CAP_BPF and CAP_PERFMON."""
    try:
        return Features(**{name: has() for name, has in _PROBES.items()})
    except BpfError as error:
        raise kernel_error("probe the kernel's features", error) from error
    except OSError as error:
        raise KernelError(f"load libbpf: {error}; install the package libbpf1") from error


def require(features: Features) -> None:
    """KernelError naming everything without which nothing can be enforced."""
    lacking = [f"{name}: {COSTS[name]}" for name in REQUIRED if name in features.missing()]
    if lacking:
        raise KernelError("use this kernel: " + "; ".join(lacking))
