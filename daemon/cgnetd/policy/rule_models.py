# SPDX-License-Identifier: Apache-2.0
"""The rules of a policy document: the shape of what is accepted, and which keys go together.

A key is checked against those that stand before it in its model. Must not know what rules mean.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .fields import GIVEN, SERVICE, AddressWord, BindPort, Port, PortNumber, RuleName, ToWord, refuse
from .part import ActionWord, ErrnoWord, Part
from .rewriting_fields import (
    BoundAddresses,
    Device,
    Mark,
    Priority,
    Sources,
    Targets,
    UnixName,
    UnixNames,
    two_of_a_family,
)
from .types import Endpoint

EgressAction = Literal["allow", "deny", "redirect", "pass"]
BindAction = Literal["allow", "deny", "rewrite", "pass"]
ProtocolWord = Literal["tcp", "udp", "udplite", "sctp", "icmp", "any"]
HookWord = Literal["connect", "sendmsg"]
FamilyWord = Literal["inet", "inet6"]
TypeWord = Literal["stream", "dgram", "raw"]

_LATER = frozenset({"until", "user", "executable"})
_UNSEEN = "no hook of this version sees sockets of that family"
_TARGET = "`redirect`, or a `to` that holds services only"
_NAME_TARGET = "`redirect: {unix: NAME}`"
_ONE_A_FAMILY = "has two of one family: accepted is at most one IPv4 and one IPv6 address"


class RulePart(Part):
    later_keys = _LATER

    action: str
    name: RuleName = ""
    errno: ErrnoWord = "EPERM"
    log: bool = False

    @field_validator("errno")
    @classmethod
    def _is_of_a_deny(cls, value: ErrnoWord, info: ValidationInfo) -> ErrnoWord:
        if info.data.get("action", "deny") != "deny":
            raise refuse("is for rules with action: deny only")
        return value


class RedirectPart(Part):
    to: Targets = Field(default_factory=list, min_length=1)
    unix: UnixName = b""

    @field_validator("to")
    @classmethod
    def _is_one_service_or_one_a_family(cls, value: Targets) -> Targets:
        endpoints = [(target.family, 0) for target in value if isinstance(target, Endpoint)]
        if len(endpoints) < len(value) and len(value) > 1:
            raise refuse("has a service beside other targets: accepted is one service alone")
        if two_of_a_family(endpoints):
            raise refuse("has two targets of one family: accepted is at most one IPv4 and one IPv6 target")
        return value

    @model_validator(mode="after")
    def _has_one_kind_of_target(self) -> RedirectPart:
        if bool(self.to) == bool(self.unix):
            raise refuse("must have either `to` or `unix`")
        return self


class SourcePart(Part):
    address: Sources = Field(min_length=1)

    @field_validator("address")
    @classmethod
    def _is_one_a_family(cls, value: Sources) -> Sources:
        if two_of_a_family(value):
            raise refuse(_ONE_A_FAMILY)
        return value


class EgressRule(RulePart):
    misplaced: ClassVar[dict[str, str]] = {"addresses": "to", "rewrite": "redirect", "privileged": "", "set": ""}

    action: EgressAction
    unix: list[UnixNames] = Field(default_factory=list, min_length=1)
    to: list[ToWord] = Field(default_factory=list, min_length=1)
    except_: list[AddressWord] = Field(default_factory=list, min_length=1, alias="except")
    protocols: list[ProtocolWord] = Field(default_factory=list, min_length=1)
    ports: list[Port] = Field(default_factory=list, min_length=1)
    hooks: list[HookWord] = Field(default_factory=list, min_length=1)
    redirect: Annotated[RedirectPart | None, GIVEN] = Field(default_factory=lambda: None)
    source: Annotated[SourcePart | None, GIVEN] = Field(default_factory=lambda: None)

    @field_validator("to", "except_", "protocols", "ports", "source")
    @classmethod
    def _is_not_of_names(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("unix"):
            raise refuse("does not go with `unix`: a rule is on addresses or on names of UNIX sockets")
        return value

    @field_validator("protocols")
    @classmethod
    def _can_be_redirected(cls, value: list[ProtocolWord], info: ValidationInfo) -> list[ProtocolWord]:
        if info.data.get("action") == "redirect":
            _only(value, ("tcp", "udp", "any"), "redirected")
        return value

    @field_validator("redirect")
    @classmethod
    def _is_of_a_redirect(cls, value: RedirectPart, info: ValidationInfo) -> RedirectPart:
        if info.data.get("action", "redirect") != "redirect":
            raise refuse("is for rules with action: redirect only")
        if "unix" in info.data and bool(info.data["unix"]) != bool(value.unix):
            raise refuse(
                "must be {unix: NAME} beside `unix`" if info.data["unix"] else "must be {to: [...]} without `unix`"
            )
        return value

    @field_validator("source")
    @classmethod
    def _is_of_what_goes_on(cls, value: SourcePart, info: ValidationInfo) -> SourcePart:
        action = info.data.get("action", "redirect")
        if action not in ("allow", "redirect"):
            raise refuse("is for rules with action: allow or redirect only")
        if action == "allow":
            _only(info.data.get("protocols", []), ("tcp", "udp"), "given a source")
        return value

    @model_validator(mode="after")
    def _has_a_target(self) -> EgressRule:
        if self.action == "redirect" and self.redirect is None and not self._goes_to_its_services():
            raise refuse(f"has no target: accepted is {_NAME_TARGET if self.unix else _TARGET}")
        return self

    def _goes_to_its_services(self) -> bool:
        return bool(self.to) and all(word.startswith(SERVICE) for word in self.to)


class RewritePart(Part):
    address: BoundAddresses = Field(default_factory=list, min_length=1)
    port: Annotated[PortNumber | None, GIVEN] = Field(default_factory=lambda: None)

    @field_validator("address")
    @classmethod
    def _is_one_a_family(cls, value: BoundAddresses) -> BoundAddresses:
        if two_of_a_family(value):
            raise refuse(_ONE_A_FAMILY)
        return value

    @model_validator(mode="after")
    def _changes_something(self) -> RewritePart:
        if not self.address and self.port is None:
            raise refuse("is empty: accepted are address and port, at least one of them")
        return self


class BindRule(RulePart):
    misplaced: ClassVar[dict[str, str]] = {
        **{"to": "addresses", "redirect": "rewrite"},
        **dict.fromkeys(("except", "hooks", "source", "unix", "set"), ""),
    }

    action: BindAction
    addresses: list[AddressWord] = Field(default_factory=list, min_length=1)
    protocols: list[ProtocolWord] = Field(default_factory=list, min_length=1)
    ports: list[BindPort] = Field(default_factory=list, min_length=1)
    rewrite: Annotated[RewritePart | None, GIVEN] = Field(default_factory=lambda: None)
    privileged: bool = False

    @field_validator("protocols")
    @classmethod
    def _can_be_rewritten(cls, value: list[ProtocolWord], info: ValidationInfo) -> list[ProtocolWord]:
        if info.data.get("action") == "rewrite":
            _only(value, ("tcp", "udp"), "rewritten")
        return value

    @field_validator("rewrite")
    @classmethod
    def _is_of_a_rewrite(cls, value: RewritePart, info: ValidationInfo) -> RewritePart:
        if info.data.get("action", "rewrite") != "rewrite":
            raise refuse("is for rules with action: rewrite only")
        return value

    @field_validator("privileged")
    @classmethod
    def _is_of_what_is_bound(cls, value: bool, info: ValidationInfo) -> bool:
        if info.data.get("action", "allow") not in ("allow", "rewrite"):
            raise refuse("is for rules with action: allow or rewrite only")
        return value

    @model_validator(mode="after")
    def _has_a_target(self) -> BindRule:
        if self.action == "rewrite" and self.rewrite is None:
            raise refuse("has nothing to bind instead: accepted is `rewrite` with address and port")
        return self


class OptionsPart(Part):
    mark: Annotated[Mark | None, GIVEN] = Field(default_factory=lambda: None)
    priority: Annotated[Priority | None, GIVEN] = Field(default_factory=lambda: None)
    device: Annotated[Device | None, GIVEN] = Field(default_factory=lambda: None)

    @model_validator(mode="after")
    def _sets_something(self) -> OptionsPart:
        if not self.model_fields_set:
            raise refuse("is empty: accepted are mark, priority and device, at least one of them")
        return self


class SocketRule(RulePart):
    misplaced: ClassVar[dict[str, str]] = {
        "protocols": "types",
        **dict.fromkeys(("to", "except", "addresses", "ports", "hooks", "redirect", "source", "rewrite", "unix"), ""),
    }
    refused_values: ClassVar[dict[str, dict[str, str]]] = {
        "families": dict.fromkeys(("packet", "netlink", "vsock", "unix"), _UNSEEN)
    }

    action: ActionWord
    families: list[FamilyWord] = Field(default_factory=list, min_length=1)
    types: list[TypeWord] = Field(default_factory=list, min_length=1)
    options: Annotated[OptionsPart | None, GIVEN] = Field(default_factory=lambda: None, alias="set")

    @field_validator("options")
    @classmethod
    def _are_of_an_allow(cls, value: OptionsPart, info: ValidationInfo) -> OptionsPart:
        if info.data.get("action", "allow") != "allow":
            raise refuse("is for rules with action: allow only")
        return value


def _only(words: list[ProtocolWord], accepted: tuple[ProtocolWord, ...], done: str) -> None:
    bad = next((word for word in words if word not in accepted), None)
    if bad:
        raise refuse(f'"{bad}" cannot be {done}: accepted are {", ".join(accepted)}, or leave it out for tcp and udp')
