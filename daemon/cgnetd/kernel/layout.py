# SPDX-License-Identifier: Apache-2.0
"""The few bytes of the contract (abi.h) that this room itself reads and writes. Must not know what they mean."""

from __future__ import annotations

import struct

MAGIC = 0x6E676331
ABI_VERSION = 6
SLOTS = 2

CELL_BYTES = 8
BLOCK_BYTES = 8192 * CELL_BYTES  # of an image, which is whole blocks

META = struct.Struct("=IIQ48s")  # magic, abi, created_ns, version

# struct cgn_control, as 32-bit words and as 64-bit ones
CONTROL = struct.Struct("=IIIIQQIIQ")  # active, generation[2], root_level, root_id, window_ns, epoch, flags, netns
CONTROL_ACTIVE_WORD = 0
CONTROL_GENERATION_WORD = 1
CONTROL_ROOT_LEVEL_WORD = 3
CONTROL_EPOCH_WORD = 8
CONTROL_FLAGS_WORD = 9
CONTROL_NETNS_QUAD = 5
CONTROL_ROOT_ID_QUAD = 2
CONTROL_WINDOW_QUAD = 3

LABEL_KEY = struct.Struct("=Q")
LABEL_ENTRY_BYTES = 128

COUNTER_KINDS = 2
STAT_COUNT = 6

FLOW_KEY_BYTES = 48
FLOW_VALUE_BYTES = 232
FLOW_VALUE_HEAD = struct.Struct("=QQQQQ")  # count, reported, window_start_ns, first_ns, last_ns
FLOW_KEY_CGROUP = struct.Struct("=24xQ16x")  # cgroup_id
FLOW_RECORD_HEAD = struct.Struct("=IIQ")  # type, reserved, count
RECORD_FLOW = 1
QUOTA_KEY = struct.Struct("=Q")  # cgroup id
QUOTA = struct.Struct("=QQ")  # flows, parent_id
QUOTA_EVERYBODY = 0  # instead of a cgroup id: how many all of them have
QUOTA_LEVELS = 4  # below the managed root

CACHED_BYTES = 48  # struct cgn_cached of bpf/maps.bpf.h, which only the programs read
CACHE_ENTRIES = 1024  # a CPU, and a byte for each in struct cgn_sights

# What is kept with sockets, and tables that only the programs write (abi.h, bpf/maps.bpf.h)
PICK = struct.Struct("=I4xQ")  # thread_id, socket
PICKS = 4096
VIEW = struct.Struct("=QQQQQHHB3x")  # asked[2], actual[2], service, asked_port, actual_port, family
VIEW_BYTES = 48
PEERS_BYTES = 96
TALKS_BYTES = 8 + 64 * 4 + 16 * 56
ORIGIN_BYTES = 24
HANDOFF_KEY_BYTES = 48
STICKY_KEY_BYTES = 24
STICKY_VALUE_BYTES = 24
NAMES_BYTES = 232

FAMILY_V4 = 4
FAMILY_V6 = 6

# struct cgn_peer_record of bpf/peers.bpf.c: netns, cookie, view, local, peer, local_port, peer_port, device, family,
# protocol; ports and addresses as the network has them
PEER_RECORD = struct.Struct("=QQ48s16s16s2s2sIHH4x")

# struct cgn_doom of bpf/destroy.bpf.c: service, address[2], port, family, destroyed
DOOM = struct.Struct("=QQQHB5xQ")
DOOM_DESTROYED = 5  # which field
