# SPDX-License-Identifier: Apache-2.0
"""The values that fields of a document take: names, words, ports, users, checked one by one as pydantic meets them.

A check that fails raises PydanticCustomError with the whole message. Must not know of documents or files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from . import subjects
from .scalars import Trap, describe, not_text, shown
from .subjects import SubjectError
from .suggest import did_you_mean
from .types import AddressRanges, Pattern, Range
from .words import WORDS, AddressError, parse_word

_POLICY_NAME = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_RULE_NAME = "[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?"
_NAME_LENGTH = 63
SET = "set:"
SERVICE = "service:"


@dataclass(slots=True)
class Context:
    """What checks need to know beyond the value, and what they learn: handed to pydantic as its context."""

    set_names: Collection[str]
    service_names: Collection[str]
    find_user: Callable[[str], int]
    words: dict[str, AddressRanges] = field(default_factory=dict)  # every good word met so far, but set: and service:
    users: dict[str, int] = field(default_factory=dict)
    hints: int = 100  # how many more unknown names get a hint; each costs a search through all names


def refuse(message: str) -> PydanticCustomError:
    # Braces in the text stay as they are: pydantic fills in only names of a context, and there is none.
    return PydanticCustomError("cgnetd", message)


def _given(value: object) -> object:
    if value is None:
        raise refuse("is empty: give it a value, or leave it out")
    return value


GIVEN = BeforeValidator(_given)  # of a value that may be left out, but not be nothing


def context_of(info: ValidationInfo) -> Context:
    assert isinstance(info.context, Context)
    return info.context


def text_of(value: object) -> str:
    if type(value) is not str:
        raise refuse(not_text(value))
    return value


def _name_check(pattern: str) -> Callable[[object], str]:
    compiled = re.compile(pattern)

    def check(value: object) -> str:
        text = text_of(value)
        if len(text) > _NAME_LENGTH or not compiled.fullmatch(text):
            raise refuse(f'"{shown(text)}" is not a name: accepted is {pattern}, at most {_NAME_LENGTH} characters')
        return text

    return check


def _name_schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "maxLength": _NAME_LENGTH})


Name = Annotated[str, PlainValidator(_name_check(_POLICY_NAME)), _name_schema(_POLICY_NAME)]
RuleName = Annotated[str, PlainValidator(_name_check(_RULE_NAME)), _name_schema(_RULE_NAME)]


def _to_word(value: object, info: ValidationInfo) -> str:
    """A word of a rule's `to`; its addresses are then in the context, unless it is a reference."""
    text = text_of(value)
    return service_word(text, info) if text.startswith(SERVICE) else _word(text, info, ("set:NAME", "service:NAME"))


def _address_word(value: object, info: ValidationInfo) -> str:
    """A word of a rule's `except` or `addresses`; as `_to_word`."""
    text = text_of(value)
    if text.startswith(SERVICE):
        raise refuse(f'"{shown(text)}": a service is accepted under `to` only')
    return _word(text, info, ("set:NAME",))


def _word(text: str, info: ValidationInfo, names: tuple[str, ...]) -> str:
    context = context_of(info)
    if text in context.words:
        return text
    if text.startswith(SET):
        name = text.removeprefix(SET)
        if name not in context.set_names:
            hint = _near(name, context.set_names, context) if context.set_names else "; there are no sets"
            raise refuse(f'"{shown(text)}": there is no AddressSet "{shown(name)}"{hint}')
        return text
    context.words[text] = _parsed(text, names)
    return text


def service_word(text: str, info: ValidationInfo) -> str:
    """`service:NAME` as it is, if there is a service of that name."""
    context, name = context_of(info), text.removeprefix(SERVICE)
    if name not in context.service_names:
        hint = _near(name, context.service_names, context) if context.service_names else "; there are no services"
        raise refuse(f'"{shown(text)}": there is no Service "{shown(name)}"{hint}')
    return text


def _set_word(value: object, info: ValidationInfo) -> str:
    """A word of a set's `addresses`; its addresses are then in the context."""
    text = text_of(value)
    for reference, kind in ((SET, "another set"), (SERVICE, "a service")):
        if text.startswith(reference):
            raise refuse(f'"{shown(text)}": a set cannot hold {kind}')
    context = context_of(info)
    if text not in context.words:
        context.words[text] = _parsed(text, ())
    return text


def _near(name: str, names: Collection[str], context: Context) -> str:
    context.hints -= 1
    return did_you_mean(name, names) if context.hints >= 0 else ""


def _parsed(text: str, names: tuple[str, ...]) -> AddressRanges:
    try:
        return parse_word(text, names=names)
    except AddressError as error:
        raise refuse(str(error)) from None


def is_absolute_path(text: str) -> bool:
    return text.startswith("/") and text.isprintable()


def _file_path(value: object) -> str:
    text = text_of(value)
    if not is_absolute_path(text):
        raise refuse(f'"{shown(text)}" is not an absolute path')
    return text


_word_schema = {"type": "string", "description": f"Address, CIDR, {', '.join(WORDS)}"}
AddressWord = Annotated[
    str,
    PlainValidator(_address_word),
    WithJsonSchema(_word_schema | {"description": f"{_word_schema['description']}, set:NAME"}),
]
ToWord = Annotated[
    str,
    PlainValidator(_to_word),
    WithJsonSchema(_word_schema | {"description": f"{_word_schema['description']}, set:NAME, service:NAME"}),
]
SetWord = Annotated[str, PlainValidator(_set_word), WithJsonSchema(_word_schema)]
FilePath = Annotated[str, PlainValidator(_file_path), WithJsonSchema({"type": "string", "pattern": "^/"})]

_PORTS_ACCEPTED = "accepted: a port 1-65535 or a range such as 8000-8099"
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def _port(value: object) -> Range:
    if type(value) is int:
        first = last = value
    elif type(value) is str and (found := _PORTS.fullmatch(value)):
        first, last = int(found[1]), int(found[2] or found[1])
    elif isinstance(value, Trap):
        raise refuse(f"is {describe(value)}; {_PORTS_ACCEPTED}")
    elif value == "ephemeral":
        raise refuse(f'"ephemeral" is for bind rules; {_PORTS_ACCEPTED}')
    else:
        raise refuse(f"{describe(value)} is not a port; {_PORTS_ACCEPTED}")
    if not 1 <= first <= 65535 or not 1 <= last <= 65535:
        hint = '; port 0 of a bind() is "ephemeral"' if first == 0 else ""
        raise refuse(f"port {last if 1 <= first <= 65535 else first} is out of range{hint}; {_PORTS_ACCEPTED}")
    if last < first:
        raise refuse(f"the range {first}-{last} is inverted: write {last}-{first}")
    return first, last


def _bind_port(value: object) -> Range | None:
    """None stands for the word "ephemeral"."""
    return None if value == "ephemeral" else _port(value)


_number_schema: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 65535}
PortNumber = Annotated[int, Field(ge=1, le=65535)]
_range_schema: dict[str, Any] = {"type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$"}
Port = Annotated[Range, PlainValidator(_port), WithJsonSchema({"anyOf": [_number_schema, _range_schema]})]
BindPort = Annotated[
    Range | None,
    PlainValidator(_bind_port),
    WithJsonSchema({"anyOf": [_number_schema, _range_schema, {"const": "ephemeral"}]}),
]


def _pattern_check(parse: Callable[[str], Pattern]) -> Callable[[object], Pattern]:
    def check(value: object) -> Pattern:
        try:
            return parse(text_of(value))
        except SubjectError as error:
            raise refuse(str(error)) from None

    return check


def _user(value: object, info: ValidationInfo) -> Pattern:
    if type(value) is int:
        uid = value
    else:
        name = text_of(value)
        is_number = name.isascii() and name.isdecimal() and len(name) <= 10
        uid = int(name) if is_number else _uid_of(name, context_of(info))
    try:
        return subjects.user(uid)
    except SubjectError as error:
        raise refuse(str(error)) from None


def _uid_of(name: str, context: Context) -> int:
    if name not in context.users:
        try:
            context.users[name] = context.find_user(name)
        except KeyError:
            raise refuse(f'there is no user "{shown(name)}"; accepted: a name or a number') from None
    return context.users[name]


_string: dict[str, Any] = {"type": "string", "minLength": 1}
Unit = Annotated[Pattern, PlainValidator(_pattern_check(subjects.unit)), WithJsonSchema(_string)]
UserUnit = Annotated[Pattern, PlainValidator(_pattern_check(subjects.user_unit)), WithJsonSchema(_string)]
SliceUnit = Annotated[Pattern, PlainValidator(_pattern_check(subjects.slice_unit)), WithJsonSchema(_string)]
CgroupPath = Annotated[
    Pattern, PlainValidator(_pattern_check(subjects.cgroup)), WithJsonSchema({"type": "string", "pattern": "^/"})
]
User = Annotated[
    Pattern, PlainValidator(_user), WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, _string]})
]
