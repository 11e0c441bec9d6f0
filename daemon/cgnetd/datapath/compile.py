# SPDX-License-Identifier: Apache-2.0
"""A policy set compiled into the image that the programs in the kernel read, with the index of its rules.

Order of an image: header, policy headers, automaton, rule cells, effects, services, blobs. Policies that compile into
the same blob share it. The layout is the ABI header's. Must not know where images are kept or how they get there.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from cgnetd.datapath import abi
from cgnetd.datapath.acting import Acting
from cgnetd.datapath.automaton import build_automaton
from cgnetd.datapath.blob import BlobSizes, PolicyBlob, compile_policy
from cgnetd.datapath.budget import DEFAULT_LIMIT_CELLS, too_large
from cgnetd.datapath.cache import BlobCache
from cgnetd.datapath.live import Live
from cgnetd.datapath.needs import needs_of
from cgnetd.datapath.refs import RuleBlock, RuleRefs
from cgnetd.datapath.rules import ACTIONS, PolicyRef, RuleIndex, built_in_refs, rule_word
from cgnetd.policy.types import Action, Policy, PolicySet

MAX_POLICIES = 0xFFFF  # a label holds policy ids of 16 bits


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """How much an image holds: `cells` of 8 bytes, `entries` of address tables, `policies`: each one's part, by id."""

    cells: int
    bytes: int
    rows: int
    port_lists: int
    entries: int
    states: int
    rules: int
    policies: tuple[BlobSizes, ...]
    effects: int  # distinct ones
    services: int
    live: int  # cells beside the image that change while it is in force
    names: int  # states of name automata


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One generation, ready to be copied. `digest` is of everything but the generation number, the index included."""

    cells: array[int]
    index: RuleIndex
    digest: str
    sizes: ImageSizes

    @property
    def live(self) -> Live:
        """What the live cells beside the image are."""
        return self.index.live

    def with_generation(self, generation: int) -> Image:
        """A copy under another generation number, 1 .. 2^32 - 1; the digest stays."""
        cells = self.cells[:]
        cells[abi.IMAGE_DEFAULT] = abi.cell(generation, abi.lo(cells[abi.IMAGE_DEFAULT]))
        return Image(cells, self.index.with_generation(generation), self.digest, self.sizes)


def compile_image(
    policy_set: PolicySet,
    *,
    default_action: Action,
    generation: int,
    cache: BlobCache | None = None,
    limit_cells: int = DEFAULT_LIMIT_CELLS,
) -> Image:
    """Compile the whole set. `default_action` is ALLOW or DENY, `generation` 1 .. 2^32 - 1.

    PolicyError, naming the policy, if one needs more than `limit_cells` cells, or all of them together do, or their
    subjects need too many states. `cache` is read and brought up to date; without one everything is compiled.
    """
    cache = cache or BlobCache()
    policies = policy_set.policies
    if len(policies) > MAX_POLICIES:
        raise too_large(policies[-1].where, f"compile policies: {len(policies)} are more than {MAX_POLICIES}")
    try:
        parts = [cache.part(policy, lambda p: compile_policy(p, limit_cells)) for policy in policies]
    finally:
        cache.forget_addresses()
    blobs = [part.blob for part in parts]
    base = abi.IMAGE_HEADER + len(policies) * abi.POLICY_CELLS
    subjects = tuple((policy.subject, policy.tier) for policy in policies)
    automaton, states = cache.automaton(subjects, lambda: build_automaton(policies, base))
    cache.retain(policies)
    built_in = RuleBlock(built_in_refs(default_action))
    refs = RuleRefs.of_blocks([built_in, *(part.rules for part in parts)])
    acting = Acting(policies, refs, policy_set.services)
    cells = _begin(len(policies), automaton)
    _add_rules(cells, [[rule_word(ref) for ref in built_in_refs(default_action)], *(part.words for part in parts)])
    acting.place(cells)
    _add_blobs(cells, policies, blobs, limit_cells)
    cells[abi.IMAGE_DEFAULT] = abi.cell(generation, ACTIONS[default_action.value])
    cells[abi.IMAGE_STATES] = abi.cell(base, states)
    names = tuple(PolicyRef(i, *part.named[1:]) for i, part in enumerate(parts))
    needs = needs_of((part.needs for part in parts), default_action)
    index = RuleIndex(generation, "", refs, names, acting.live, needs)
    digest = image_digest(cells, index)
    return Image(cells, index.with_digest(digest), digest, _sizes(cells, blobs, states, len(refs), acting))


def image_digest(cells: array[int] | memoryview, index: RuleIndex) -> str:
    """The digest of an image (64-bit cells) and its index, generation numbers and recorded digest left out.

    What stands in a slot is intact if this equals `index.digest`.
    """
    view = memoryview(cells).cast("B") if isinstance(cells, array) else cells.cast("B")
    start = abi.IMAGE_DEFAULT * 8
    default = int.from_bytes(view[start : start + 8], abi.BYTE_ORDER)
    sha = hashlib.sha256(view[:start])
    sha.update(abi.lo(default).to_bytes(8, abi.BYTE_ORDER))
    sha.update(view[start + 8 :])
    sha.update(index.with_generation(0).with_digest("").to_bytes())
    return sha.hexdigest()


def _begin(policies: int, automaton: array[int]) -> array[int]:
    """The cells up to the rules; room for the headers of the policies."""
    headers_end = abi.IMAGE_HEADER + policies * abi.POLICY_CELLS
    cells = array("Q", bytes(8 * headers_end)) + automaton
    cells[abi.IMAGE_MAGIC] = abi.cell(abi.MAGIC, abi.ABI_VERSION)
    cells[abi.IMAGE_COUNTS] = abi.cell(policies, 0)
    return cells


def _add_rules(cells: array[int], words: Sequence[Sequence[int]]) -> None:
    """A cell for each rule, in the order of ids."""
    at = len(cells)
    cells.extend([abi.cell(rule_id, word) for rule_id, word in enumerate(chain.from_iterable(words))])
    cells[abi.IMAGE_RULES] = abi.cell(0, at)
    cells[abi.IMAGE_COUNTS] |= len(cells) - at


def _add_blobs(cells: array[int], policies: Sequence[Policy], blobs: Sequence[PolicyBlob], limit_cells: int) -> None:
    """The rest of the cells, and the headers of the policies."""
    placed: dict[bytes, int] = {}
    first_rule = abi.RULE_FIRST
    for policy_id, (policy, blob) in enumerate(zip(policies, blobs, strict=True)):
        at = _place(cells, blob, placed)
        if len(cells) > limit_cells:
            raise too_large(policy.where, f'policy "{policy.name}" brings the image above {limit_cells} cells')
        _write_policy_header(cells, policy_id, policy, blob, abi.cell(at, first_rule))
        first_rule += blob.rules
    cells.frombytes(bytes(8 * (-len(cells) % abi.BLOCK_CELLS)))
    cells[abi.IMAGE_SIZE] = abi.cell(0, len(cells))


def _place(cells: array[int], blob: PolicyBlob, placed: dict[bytes, int]) -> int:
    """Where the blob's tables stand; equal ones stand there once."""
    content = blob.fingerprint
    if content not in placed:
        placed[content] = len(cells)
        cells.extend(blob.cells)
    return placed[content]


def _write_policy_header(cells: array[int], policy_id: int, policy: Policy, blob: PolicyBlob, base: int) -> None:
    at = abi.IMAGE_HEADER + policy_id * abi.POLICY_CELLS
    cells[at : at + abi.POLICY_CELLS] = array("Q", blob.header)
    flags = abi.hi(blob.header[abi.POLICY_FLAGS]) | (abi.POLICY_AUDIT if policy.audit else 0)
    cells[at + abi.POLICY_BASE] = base
    cells[at + abi.POLICY_FLAGS] = abi.cell(flags, policy.tier)


def _sizes(cells: array[int], blobs: Sequence[PolicyBlob], states: int, rules: int, acting: Acting) -> ImageSizes:
    each = tuple(blob.sizes for blob in blobs)
    return ImageSizes(
        cells=len(cells),
        bytes=len(cells) * cells.itemsize,
        rows=sum(sizes.rows for sizes in each),
        port_lists=sum(sizes.port_lists for sizes in each),
        entries=sum(sizes.entries for sizes in each),
        states=states,
        rules=rules,
        policies=each,
        effects=acting.effects,
        services=len(acting.live.services),
        live=acting.live.size,
        names=sum(sizes.names for sizes in each),
    )
