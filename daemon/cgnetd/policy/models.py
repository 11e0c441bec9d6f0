# SPDX-License-Identifier: Apache-2.0
"""The documents of the policy language, version 1, as pydantic models: the shape of what is accepted, and no more.

Keys and values that later versions will know are named here too, so that they are refused by name. Must not know how
documents are read or what rules mean.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from .fields import (
    AddressWord,
    BindPort,
    CgroupPath,
    FilePath,
    Name,
    Port,
    RuleName,
    SetWord,
    SliceUnit,
    Unit,
    User,
    UserUnit,
)

ActionWord = Literal["allow", "deny", "pass"]
ProtocolWord = Literal["tcp", "udp", "udplite", "sctp", "icmp", "any"]
HookWord = Literal["connect", "sendmsg"]
ErrnoWord = Literal["EPERM", "EACCES", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT"]
API_VERSION = "cgnetd/v1"


class Part(BaseModel):
    """A mapping that accepts its own keys only, and values of the very type."""

    model_config = ConfigDict(extra="forbid", strict=True)

    later_keys: ClassVar[frozenset[str]] = frozenset()  # refused as "not supported yet by this version"
    later_values: ClassVar[dict[str, frozenset[str]]] = {}  # likewise, by key
    misplaced: ClassVar[dict[str, str]] = {}  # keys of another place, and what to write instead


class Metadata(Part):
    name: Name
    description: str = ""


class SubjectLists(Part):
    later_keys = frozenset({"containers"})

    units: list[Unit] = Field(default_factory=list, min_length=1)
    user_units: list[UserUnit] = Field(default_factory=list, min_length=1, alias="userUnits")
    slices: list[SliceUnit] = Field(default_factory=list, min_length=1)
    users: list[User] = Field(default_factory=list, min_length=1)
    cgroups: list[CgroupPath] = Field(default_factory=list, min_length=1)

    @model_validator(mode="after")
    def _names_something(self) -> SubjectLists:
        if not (self.units or self.user_units or self.slices or self.users or self.cgroups):
            raise PydanticCustomError(
                "cgnetd", "names no cgroups: accepted are lists of units, userUnits, slices, users, cgroups"
            )
        return self


class SubjectPart(SubjectLists):
    exclude: SubjectLists | None = Field(default_factory=lambda: None, alias="not")

    @field_validator("exclude", mode="before")
    @classmethod
    def _is_not_empty(cls, value: object) -> object:
        if value is None:
            raise PydanticCustomError("cgnetd", "is empty: accepted are the keys of a subject, or leave it out")
        return value


class RulePart(Part):
    action: ActionWord
    name: RuleName = ""
    protocols: list[ProtocolWord] = Field(default_factory=list, min_length=1)
    errno: ErrnoWord = "EPERM"
    log: bool = False

    @field_validator("errno")
    @classmethod
    def _is_of_a_deny(cls, value: ErrnoWord, info: ValidationInfo) -> ErrnoWord:
        if info.data.get("action", "deny") != "deny":
            raise PydanticCustomError("cgnetd", "is for rules with action: deny only")
        return value


class EgressRule(RulePart):
    later_keys = frozenset({"redirect", "source", "until", "user", "executable"})
    later_values: ClassVar[dict[str, frozenset[str]]] = {"action": frozenset({"redirect"})}
    misplaced: ClassVar[dict[str, str]] = {"addresses": "to", "rewrite": "", "privileged": ""}

    to: list[AddressWord] = Field(default_factory=list, min_length=1)
    except_: list[AddressWord] = Field(default_factory=list, min_length=1, alias="except")
    ports: list[Port] = Field(default_factory=list, min_length=1)
    hooks: list[HookWord] = Field(default_factory=list, min_length=1)


class BindRule(RulePart):
    later_keys = frozenset({"rewrite", "privileged", "until", "user", "executable"})
    later_values: ClassVar[dict[str, frozenset[str]]] = {"action": frozenset({"rewrite"})}
    misplaced: ClassVar[dict[str, str]] = {"to": "addresses", "except": "", "hooks": "", "redirect": "", "source": ""}

    addresses: list[AddressWord] = Field(default_factory=list, min_length=1)
    ports: list[BindPort] = Field(default_factory=list, min_length=1)


class DefaultPart(Part):
    later_keys = frozenset({"ingress"})
    later_values: ClassVar[dict[str, frozenset[str]]] = {"socket": frozenset({"allow", "deny"})}

    egress: ActionWord = "pass"
    bind: ActionWord = "pass"
    socket: Literal["pass"] = "pass"


class PolicySpec(Part):
    later_keys = frozenset({"ingress", "socket", "tcp", "onPolicyChange", "until"})

    subject: SubjectPart
    tier: Literal["admin", "normal", "baseline"] = "normal"
    priority: int = Field(default=500, ge=0, le=1000)
    mode: Literal["enforce", "audit"] = "enforce"
    egress: list[EgressRule] = Field(default_factory=list, min_length=1)
    bind: list[BindRule] = Field(default_factory=list, min_length=1)
    default: DefaultPart = Field(default_factory=DefaultPart)


class AddressSetSpec(Part):
    addresses: list[SetWord] = Field(default_factory=list, min_length=1)
    files: list[FilePath] = Field(default_factory=list, min_length=1)

    @model_validator(mode="after")
    def _holds_something(self) -> AddressSetSpec:
        if not (self.addresses or self.files):
            raise PydanticCustomError("cgnetd", "is empty: accepted are addresses and files, at least one of them")
        return self


class PolicyDocument(Part):
    api_version: Literal["cgnetd/v1"] = Field(alias="apiVersion")
    kind: Literal["Policy"]
    metadata: Metadata
    spec: PolicySpec


class AddressSetDocument(Part):
    api_version: Literal["cgnetd/v1"] = Field(alias="apiVersion")
    kind: Literal["AddressSet"]
    metadata: Metadata
    spec: AddressSetSpec


KINDS: dict[str, type[PolicyDocument] | type[AddressSetDocument]] = {
    "Policy": PolicyDocument,
    "AddressSet": AddressSetDocument,
}
LATER_KINDS = frozenset({"Service"})
AnyDocument = Annotated[PolicyDocument | AddressSetDocument, Field(discriminator="kind")]
