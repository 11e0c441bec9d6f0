# SPDX-License-Identifier: Apache-2.0
"""The documents of the policy language, version 1, as pydantic models: the shape of what is accepted, and no more.

Keys and values that later versions will know are named here too, so that they are refused by name. Must not know how
documents are read or what rules mean.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from .fields import GIVEN, CgroupPath, FilePath, SetWord, SliceUnit, Unit, User, UserUnit, refuse
from .part import ActionWord, ApiVersion, Metadata, Part
from .rewriting_fields import Congestion
from .rule_models import BindRule, EgressRule, SocketRule
from .service_models import ServiceDocument

_Rto = Annotated[int, Field(ge=1, le=60_000)]  # milliseconds
_Window = Annotated[int, Field(ge=1, le=1024)]  # segments


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
            raise refuse("names no cgroups: accepted are lists of units, userUnits, slices, users, cgroups")
        return self


class SubjectPart(SubjectLists):
    exclude: SubjectLists | None = Field(default_factory=lambda: None, alias="not")

    @field_validator("exclude", mode="before")
    @classmethod
    def _is_not_empty(cls, value: object) -> object:
        if value is None:
            raise refuse("is empty: accepted are the keys of a subject, or leave it out")
        return value


class DefaultPart(Part):
    later_keys = frozenset({"ingress"})

    egress: ActionWord = "pass"
    bind: ActionWord = "pass"
    socket: ActionWord = "pass"


class TcpPart(Part):
    congestion: Annotated[Congestion | None, GIVEN] = Field(default_factory=lambda: None)
    initial_rto_ms: Annotated[_Rto | None, GIVEN] = Field(default_factory=lambda: None, alias="initialRtoMs")
    initial_window: Annotated[_Window | None, GIVEN] = Field(default_factory=lambda: None, alias="initialWindow")

    @model_validator(mode="after")
    def _sets_something(self) -> TcpPart:
        if not self.model_fields_set:
            raise refuse("is empty: accepted are congestion, initialRtoMs and initialWindow, at least one of them")
        return self


class PolicySpec(Part):
    later_keys = frozenset({"ingress", "onPolicyChange", "until"})

    subject: SubjectPart
    tier: Literal["admin", "normal", "baseline"] = "normal"
    priority: int = Field(default=500, ge=0, le=1000)
    mode: Literal["enforce", "audit"] = "enforce"
    egress: list[EgressRule] = Field(default_factory=list, min_length=1)
    bind: list[BindRule] = Field(default_factory=list, min_length=1)
    socket: list[SocketRule] = Field(default_factory=list, min_length=1)
    tcp: Annotated[TcpPart | None, GIVEN] = Field(default_factory=lambda: None)
    default: DefaultPart = Field(default_factory=DefaultPart)


class AddressSetSpec(Part):
    addresses: list[SetWord] = Field(default_factory=list, min_length=1)
    files: list[FilePath] = Field(default_factory=list, min_length=1)

    @model_validator(mode="after")
    def _holds_something(self) -> AddressSetSpec:
        if not (self.addresses or self.files):
            raise refuse("is empty: accepted are addresses and files, at least one of them")
        return self


class PolicyDocument(Part):
    api_version: ApiVersion = Field(alias="apiVersion")
    kind: Literal["Policy"]
    metadata: Metadata
    spec: PolicySpec


class AddressSetDocument(Part):
    api_version: ApiVersion = Field(alias="apiVersion")
    kind: Literal["AddressSet"]
    metadata: Metadata
    spec: AddressSetSpec


KINDS: dict[str, type[PolicyDocument] | type[AddressSetDocument] | type[ServiceDocument]] = {
    "Policy": PolicyDocument,
    "AddressSet": AddressSetDocument,
    "Service": ServiceDocument,
}
AnyDocument = Annotated[PolicyDocument | AddressSetDocument | ServiceDocument, Field(discriminator="kind")]
