# SPDX-License-Identifier: Apache-2.0
"""The Service document: the shape of what is accepted, and which keys go together.

A key is checked against those that stand before it in its model. Must not know of other documents.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .endpoints import address_text, endpoint_text
from .fields import PortNumber, refuse
from .part import ApiVersion, Metadata, Part
from .rewriting_fields import Address, Interval, StickyTime, Timeout
from .types import Endpoint

_BACKENDS_MAX = 256  # of one family
_Count = Annotated[int, Field(ge=1, le=100)]


class ServicePort(Part):
    port: PortNumber
    protocol: Literal["tcp", "udp"] = "tcp"


class BackendPart(Part):
    address: Address
    port: PortNumber = Field(default_factory=lambda: 0)  # 0: the one asked for
    weight: _Count = 1

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(*self.address, self.port)


class HealthPart(Part):
    interval: Interval = Field(default_factory=lambda: 2_000_000_000)
    timeout: Timeout = Field(default_factory=lambda: 500_000_000)
    fall: _Count = 2
    rise: _Count = 2
    port: PortNumber = Field(default_factory=lambda: 0)  # 0: the backend's

    @model_validator(mode="after")
    def _answers_before_the_next_probe(self) -> HealthPart:
        if self.timeout >= self.interval:
            raise refuse("has a timeout that is not shorter than the interval; left out they are 500ms and 2s")
        return self


class ServiceSpec(Part):
    addresses: list[Address] = Field(min_length=1)
    ports: list[ServicePort] = Field(min_length=1)
    backends: list[BackendPart] = Field(min_length=1)
    balance: Literal["random", "sticky"] = "random"
    sticky_for: StickyTime = Field(default_factory=lambda: 600_000_000_000, alias="stickyFor")
    health: HealthPart | None = Field(default_factory=lambda: None)
    errno: Literal["ECONNREFUSED", "EHOSTUNREACH"] = "ECONNREFUSED"
    on_backend_down: Literal["keep", "close"] = Field(default="keep", alias="onBackendDown")

    @field_validator("addresses")
    @classmethod
    def _are_distinct(cls, value: list[Address]) -> list[Address]:
        twice = next((address for address, count in Counter(value).items() if count > 1), None)
        if twice:
            raise refuse(f"holds {address_text(*twice)} twice")
        return value

    @field_validator("ports")
    @classmethod
    def _are_distinct_ports(cls, value: list[ServicePort]) -> list[ServicePort]:
        counts = Counter((port.protocol, port.port) for port in value)
        twice = next((found for found, count in counts.items() if count > 1), None)
        if twice:
            raise refuse(f"holds {twice[0]} port {twice[1]} twice")
        return value

    @field_validator("backends")
    @classmethod
    def _are_distinct_backends(cls, value: list[BackendPart]) -> list[BackendPart]:
        counts = Counter(backend.endpoint for backend in value)
        twice = next((found for found, count in counts.items() if count > 1), None)
        if twice:
            raise refuse(f"holds {endpoint_text(twice)} twice: write it once, with a weight")
        for family in (4, 6):
            if sum(endpoint.family == family for endpoint in counts) > _BACKENDS_MAX:
                raise refuse(f"holds more than {_BACKENDS_MAX} IPv{family} backends")
        return value

    @field_validator("backends")
    @classmethod
    def _serve_every_address(cls, value: list[BackendPart], info: ValidationInfo) -> list[BackendPart]:
        served = {backend.address[0] for backend in value}
        for family, address in info.data.get("addresses", []):
            if family not in served:
                raise refuse(f"has no IPv{family} backend for the address {address_text(family, address)}")
        return value

    @field_validator("sticky_for")
    @classmethod
    def _is_of_a_sticky_one(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("balance", "sticky") != "sticky":
            raise refuse("is for services with balance: sticky only")
        return value

    @field_validator("health", mode="before")
    @classmethod
    def _is_not_empty(cls, value: object) -> object:
        if value is None:
            raise refuse("is empty: write {} for the usual probes, or leave it out for none")
        return value

    @field_validator("health")
    @classmethod
    def _has_something_to_connect_to(cls, value: HealthPart, info: ValidationInfo) -> HealthPart:
        ports: list[ServicePort] | None = info.data.get("ports")
        backends: list[BackendPart] = info.data.get("backends", [])
        if ports is None or value.port or any(port.protocol == "tcp" for port in ports):
            return value
        without = next((backend for backend in backends if not backend.port), None)
        if without:
            raise refuse(
                f"has no TCP port to connect to at {endpoint_text(without.endpoint)}: give it a port, "
                "health itself or the backend"
            )
        return value


class ServiceDocument(Part):
    api_version: ApiVersion = Field(alias="apiVersion")
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec
