# SPDX-License-Identifier: Apache-2.0
"""What a rule id means to people: names, files and lines, kept beside the image it belongs to.

The index travels with the image, so that a daemon with broken policy files still tells what is in force. Must not know
how an image is laid out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.live import Live, live_from
from cgnetd.datapath.refs import RuleBlock, RuleRef, RuleRefs
from cgnetd.datapath.words import leads_to
from cgnetd.policy.types import Action, Policy, Rule, Section, TcpSettings

_BLOCKS_END = b"\n"
EPERM = 1  # errno of every deny that no rule words

BUILT_IN = ("default_action", "unlabelled", "corrupt", "overflow")  # names of the rule ids below abi.RULE_FIRST

NEEDS = (
    "egress",  # calls to addresses are judged
    "bind",
    "socket",  # new sockets are judged by rules of `socket`
    "unix",  # calls to names of UNIX sockets are judged
    "tcp",  # connections are tuned
    "redirect_tcp",  # sockets have to be given the view of what they asked for
    "redirect_udp",
    "bind_view",
    "unix_redirect",
)
"""What a generation can ask of the kernel."""


class PolicyRef(NamedTuple):
    """One policy id. `has_egress` and `has_bind`: it says something about that direction."""

    policy_id: int
    name: str
    tier: str
    priority: int
    audit: bool
    file: str
    line: int
    has_egress: bool
    has_bind: bool


@dataclass(slots=True)
class _Encoded:
    """A place for the bytes of what an index has besides rules, generation and digest, made when they are needed."""

    rest: bytes | None = None


@dataclass(frozen=True, slots=True)
class RuleIndex:
    """Rules by id (`refs[i].rule_id == i`) and policies by id of one generation; `digest` is its image's. `live`: what
    its live cells are; `needs`: words of NEEDS."""

    generation: int
    digest: str
    refs: RuleRefs
    policies: tuple[PolicyRef, ...]
    live: Live = field(default_factory=Live)
    needs: frozenset[str] = frozenset()
    _encoded: _Encoded = field(default_factory=_Encoded, init=False, repr=False, compare=False)

    def with_generation(self, generation: int) -> RuleIndex:
        """The same index under another generation number; the digest does not change."""
        return self._under(generation, self.digest)

    def with_digest(self, digest: str) -> RuleIndex:
        """The same index with another digest."""
        return self._under(self.generation, digest)

    def _under(self, generation: int, digest: str) -> RuleIndex:
        found = replace(self, generation=generation, digest=digest)
        object.__setattr__(found, "_encoded", self._encoded)  # the rest is the same
        return found

    def to_bytes(self) -> bytes:
        """Two lines of JSON without padding, the rules and the rest; equal indexes of equal blocks give equal bytes."""
        if self._encoded.rest is None:
            self._encoded.rest = _json([self.policies, self.live, sorted(self.needs)])[1:]
        blocks = b",".join(map(_encoded, self.refs.blocks))
        head = _json([self.generation, self.digest])[:-1]
        return b"[" + blocks + b"]" + _BLOCKS_END + head + b"," + self._encoded.rest

    @classmethod
    def from_bytes(cls, data: bytes) -> RuleIndex:
        """The index that `to_bytes` wrote; NUL padding behind it is ignored. ValueError if it is not one."""
        try:
            blocks, _, document = data.rstrip(b"\0").partition(_BLOCKS_END)
            generation, digest, policies, live, needs = json.loads(document)
            return cls(
                int(generation),
                str(digest),
                RuleRefs.of_blocks([RuleBlock.from_columns(*block) for block in json.loads(blocks)]),
                tuple(map(_policy_ref, policies)),
                live_from(live),
                frozenset(NEEDS[NEEDS.index(need)] for need in needs),
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"read rule index: {error}") from error


def _encoded(block: RuleBlock) -> bytes:
    if block.encoded is None:
        block.encoded = _json(block.columns())
    return block.encoded


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def _policy_ref(fields: list[object]) -> PolicyRef:
    return PolicyRef(*fields)  # type: ignore[arg-type]


def has_egress(policy: Policy) -> bool:
    """Whether the policy says anything about addresses it may reach; if not, the walk passes it at once."""
    return policy.default_egress is not Action.PASS or any(rule.unix is None for rule in policy.egress)


def has_bind(policy: Policy) -> bool:
    """Whether the policy says anything about bind."""
    return bool(policy.bind) or policy.default_bind is not Action.PASS


def has_socket(policy: Policy) -> bool:
    """Whether the policy says anything about new sockets."""
    return bool(policy.socket) or policy.default_socket is not Action.PASS


def has_unix(policy: Policy) -> bool:
    """Whether the policy says anything about UNIX sockets."""
    return any(rule.unix is not None for rule in policy.egress)


def tunes_tcp(policy: Policy) -> bool:
    return policy.tcp is not None and policy.tcp != TcpSettings()


def built_in_refs(default_action: Action) -> tuple[RuleRef, ...]:
    """The rules below abi.RULE_FIRST. All but an allowing default_action deny, and every deny is told."""
    deny = default_action is Action.DENY
    first = _built_in(0, default_action.value, EPERM if deny else 0, deny)
    return (first, *(_built_in(i, Action.DENY.value, EPERM, True) for i in range(1, len(BUILT_IN))))


def policy_refs(policy: Policy) -> Iterator[RuleRef]:
    """The rules of one policy in the order of `rules_of`, with ids from 0."""
    tier = policy.tier.name.lower()
    for rule_id, rule in enumerate(rules_of(policy)):
        deny = rule.action is Action.DENY
        yield RuleRef(
            rule_id,
            policy.name,
            rule.name,
            rule.section.value,
            rule.where.file,
            rule.where.line,
            rule.action.value,
            rule.errno if deny else 0,
            rule.log,
            tier,
            policy.audit,
            leads_to(rule),
        )


def rules_of(policy: Policy) -> tuple[Rule, ...]:
    """The rules that have ids and references, in their order: egress, bind, socket, then the defaults that decide."""
    return (*policy.egress, *policy.bind, *policy.socket, *default_rules(policy))


def default_rules(policy: Policy) -> tuple[Rule, ...]:
    """The defaults that decide, as rules that match everything; one that denies logs."""
    where = policy.default_where or policy.where
    defaults = (
        (Section.EGRESS, policy.default_egress),
        (Section.BIND, policy.default_bind),
        (Section.SOCKET, policy.default_socket),
    )
    return tuple(
        Rule(f"default.{section.value}", section, action, where, errno=EPERM, log=action is Action.DENY)
        for section, action in defaults
        if action is not Action.PASS
    )


def policy_ref(policy_id: int, policy: Policy) -> PolicyRef:
    """What the index says of a policy."""
    return PolicyRef(
        policy_id,
        policy.name,
        policy.tier.name.lower(),
        policy.priority,
        policy.audit,
        policy.where.file,
        policy.where.line,
        has_egress(policy),
        has_bind(policy),
    )


def rule_word(ref: RuleRef) -> int:
    """The lower half of the cell that programs read for a rule id. What leads somewhere, in words, has an effect."""
    flags = (abi.RULE_LOG if ref.log else 0) | (abi.RULE_EFFECT if ref.to else 0)
    return ref.errno << 16 | flags << 8 | ACTIONS[ref.action]


ACTIONS = {
    Action.ALLOW.value: abi.ACTION_ALLOW,
    Action.DENY.value: abi.ACTION_DENY,
    Action.PASS.value: abi.ACTION_PASS,
    Action.REDIRECT.value: abi.ACTION_REWRITE,
    Action.REWRITE.value: abi.ACTION_REWRITE,
}


def _built_in(rule_id: int, action: str, errno: int, log: bool) -> RuleRef:
    return RuleRef(rule_id, "", BUILT_IN[rule_id], "", "", 0, action, errno, log, "", False)
