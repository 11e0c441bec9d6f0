# SPDX-License-Identifier: Apache-2.0
"""The values that targets, sources, services, socket options and tuning take, checked one by one as in `fields`.

Must not know of documents or files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from .endpoints import parse_address, parse_endpoint, scoped, unusable
from .fields import SERVICE, refuse, service_word, text_of
from .scalars import Trap, describe, shown
from .types import Endpoint
from .unix_words import SocketNameError, name_globs, plain_name
from .words import AddressError

Local = tuple[int, int]  # family and address
_V6_UNSPECIFIED = (6, 0)
_ONE_HOST = "accepted is an address of one host"


def _is_not(value: object, wanted: str) -> str:
    return f"is {describe(value)}" if isinstance(value, Trap) else f"{describe(value)} is not {wanted}"


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | Trap) else value


def _one_or_more(item: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})


def _target(value: object, info: ValidationInfo) -> Endpoint | str:
    """An endpoint, or the word `service:NAME`."""
    text = text_of(value)
    if text.startswith(SERVICE):
        return service_word(text, info)
    try:
        endpoint = parse_endpoint(text)
    except AddressError as error:
        raise refuse(f"{error}; accepted: ADDRESS, ADDRESS:PORT, [V6], [V6]:PORT, service:NAME") from None
    if reason := unusable(endpoint.family, endpoint.address):
        raise refuse(f'"{shown(text)}" {reason}: {_ONE_HOST}')
    return endpoint


def _address_check(fault: Callable[[int, int], str]) -> Callable[[object], Local]:
    def check(value: object) -> Local:
        text = text_of(value)
        try:
            found = parse_address(text)
        except AddressError as error:
            raise refuse(str(error)) from None
        if reason := fault(*found):
            raise refuse(f'"{shown(text)}" {reason}')
        return found

    return check


def _unusable(family: int, address: int) -> str:
    reason = unusable(family, address)
    return f"{reason}: {_ONE_HOST}" if reason else ""


def _unbindable(family: int, address: int) -> str:
    if (family, address) == _V6_UNSPECIFIED:
        return "could take the port in IPv4 too: name an address"
    return scoped(family, address)


_target_schema: dict[str, Any] = {"type": "string", "description": "ADDRESS, ADDRESS:PORT, [V6]:PORT or service:NAME"}
_address_schema: dict[str, Any] = {"type": "string", "description": "IPv4 or IPv6 address"}
_Target = Annotated[Endpoint | str, PlainValidator(_target), WithJsonSchema(_target_schema)]
_Bound = Annotated[Local, PlainValidator(_address_check(_unbindable)), WithJsonSchema(_address_schema)]
Address = Annotated[Local, PlainValidator(_address_check(_unusable)), WithJsonSchema(_address_schema)]
Targets = Annotated[list[_Target], BeforeValidator(_listed), _one_or_more(_target_schema)]
Sources = Annotated[list[Address], BeforeValidator(_listed), _one_or_more(_address_schema)]
BoundAddresses = Annotated[list[_Bound], BeforeValidator(_listed), _one_or_more(_address_schema)]


def _names(value: object) -> tuple[bytes, ...]:
    try:
        return name_globs(text_of(value))
    except SocketNameError as error:
        raise refuse(str(error)) from None


def _name(value: object) -> bytes:
    try:
        return plain_name(text_of(value))
    except SocketNameError as error:
        raise refuse(str(error)) from None


_name_schema = WithJsonSchema({"type": "string", "pattern": "^(/.+|@.+|any)$"})
UnixNames = Annotated[tuple[bytes, ...], PlainValidator(_names), _name_schema]
UnixName = Annotated[bytes, PlainValidator(_name), WithJsonSchema({"type": "string", "pattern": "^[/@].+$"})]

_UNITS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
_DURATION = re.compile(r"([1-9][0-9]{0,9})(ms|s|m|h|d)")


def _duration_check(shortest: str, longest: str) -> Callable[[object], int]:
    def check(value: object) -> int:
        accepted = f"accepted: {shortest} to {longest}, in ms, s, m, h or d"
        found = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if not found:
            raise refuse(f"{_is_not(value, 'a duration')}; {accepted}")
        duration_ns = _ns(found)
        if not _ns_of(shortest) <= duration_ns <= _ns_of(longest):
            raise refuse(f"{describe(value)} is out of range; {accepted}")
        return duration_ns

    return check


def _ns(found: re.Match[str]) -> int:
    return int(found[1]) * _UNITS[found[2]]


def _ns_of(text: str) -> int:
    found = _DURATION.fullmatch(text)
    assert found
    return _ns(found)


_duration_schema = WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"})
StickyTime = Annotated[int, PlainValidator(_duration_check("1s", "30d")), _duration_schema]  # all in nanoseconds
Interval = Annotated[int, PlainValidator(_duration_check("100ms", "1h")), _duration_schema]
Timeout = Annotated[int, PlainValidator(_duration_check("10ms", "1h")), _duration_schema]

_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,8}")
_LAST_MARK = (1 << 32) - 1


def _mark(value: object) -> int:
    text = value.text if isinstance(value, Trap) else value
    if isinstance(text, str) and _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if type(value) is int and 0 <= value <= _LAST_MARK:
        return value
    raise refuse(f"{_is_not(value, 'a mark')}; accepted: 0 to {_LAST_MARK}, or 0x0 to 0xffffffff")


def _device(value: object) -> str:
    """The name of a network device, as the kernel's dev_valid_name() has it."""
    text = text_of(value)
    too_long = len(text.encode("utf-8", "surrogateescape")) > 15
    if too_long or text in ("", ".", "..") or not text.isprintable() or set(text) & set("/: "):
        raise refuse(
            f'"{shown(text)}" is not the name of a network device: accepted are up to 15 characters, no /, :, blank'
        )
    return text


def _congestion(value: object) -> str:
    text = text_of(value)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,15}", text):
        raise refuse(f'"{shown(text)}" is not a congestion control: accepted are up to 15 letters, digits, _ and -')
    return text


_mark_number: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": _LAST_MARK}
_mark_hex: dict[str, Any] = {"type": "string", "pattern": f"^{_HEXADECIMAL.pattern}$"}
Mark = Annotated[int, PlainValidator(_mark), WithJsonSchema({"anyOf": [_mark_number, _mark_hex]})]
Priority = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
Device = Annotated[str, PlainValidator(_device), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 15})]
Congestion = Annotated[
    str, PlainValidator(_congestion), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,15}$"})
]


def two_of_a_family(found: list[Local]) -> bool:
    """Whether two of the addresses are of one family."""
    return len({family for family, _ in found}) < len(found)
