# SPDX-License-Identifier: Apache-2.0
"""What pydantic found wrong with a document, as problems: place, key path, what is wrong, what is accepted.

Must not know the meaning of any field beyond what the models say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ..errors import Problem
from .document import Document, Loc
from .part import Part
from .scalars import Trap, describe, not_text, shown
from .suggest import did_you_mean

_NOT_YET = "is not supported yet by this version"
_TYPES = {
    "list_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "int_type": "a whole number",
    "bool_type": "true or false",
}


def problems_of(document: Document, model: type[Part], error: ValidationError) -> list[Problem]:
    """One problem for each thing wrong."""
    return [_problem(document, model, found) for found in error.errors(include_url=False)]


def _problem(document: Document, root: type[Part], found: Mapping[str, Any]) -> Problem:
    loc: Loc = found["loc"]
    kind: str = found["type"]
    model = _model_at(root, loc[:-1])
    if kind == "extra_forbidden":
        return document.problem(loc, _unknown_key(model, str(loc[-1])), key=True)
    if kind == "missing":
        return document.problem(loc, f"is missing{_accepted_at(model, str(loc[-1]))}")
    return document.problem(loc, _message(model, kind, found))


def _message(model: type[Part] | None, kind: str, found: Mapping[str, Any]) -> str:
    value: object = found["input"]
    context: dict[str, Any] = found.get("ctx", {})
    if kind == "literal_error":
        return _not_a_word(model, found["loc"], value)
    if kind == "string_type":
        return not_text(value)
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}, is {describe(value)}"
    if kind == "too_short":
        return "is an empty list: name at least one, or leave it out"
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']}, is {value}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']}, is {value}"
    return str(found["msg"])


def _unknown_key(model: type[Part] | None, key: str) -> str:
    if model is None:
        return "is not a known key"
    if key in model.later_keys:
        return _NOT_YET
    accepted = [field.alias or name for name, field in model.model_fields.items()]
    listed = f"accepted: {', '.join(accepted)}"
    if key in model.misplaced:
        instead = model.misplaced[key]
        return f"does not belong here{f': write `{instead}`' if instead else ''}; {listed}"
    if key == "<<":
        return f"is a YAML merge, which is not accepted; {listed}"
    return f"is not a known key{did_you_mean(key, accepted)}; {listed}"


def _not_a_word(model: type[Part] | None, loc: Loc, value: object) -> str:
    name = next((str(step) for step in reversed(loc) if isinstance(step, str)), "")
    if model is None:
        model = Part
    if isinstance(value, str) and value in model.later_values.get(name, ()):
        return f'"{value}" {_NOT_YET}{_accepted_at(model, name)}'
    if isinstance(value, str) and (reason := model.refused_values.get(name, {}).get(value)):
        return f'"{value}": {reason}{_accepted_at(model, name)}'
    if isinstance(value, str):
        near = did_you_mean(value, _words_of(model, name))
        return f'"{shown(value)}" is not accepted{near}{_accepted_at(model, name)}'
    verb = "is " if isinstance(value, Trap) else "must be a word, is "
    return f"{verb}{describe(value)}{_accepted_at(model, name)}"


def _accepted_at(model: type[Part] | None, name: str) -> str:
    words = _words_of(model, name)
    return f"; accepted: {', '.join(words)}" if words else ""


def _words_of(model: type[Part] | None, name: str) -> tuple[str, ...]:
    """The words that a field accepts, in a list or alone; () if it is not a field of words."""
    annotation = _annotation(model, name)
    inner = get_args(annotation)
    if len(inner) == 1 and not isinstance(inner[0], str):
        inner = get_args(inner[0])
    return tuple(word for word in inner if isinstance(word, str))


def _annotation(model: type[BaseModel] | None, name: str) -> Any:
    if model is None:
        return None
    fields = model.model_fields.items()
    return next((field.annotation for key, field in fields if name in (key, field.alias)), None)


def _model_at(model: type[Part], loc: Loc) -> type[Part] | None:
    """The model that a value at `loc` is checked by; within a list of words, the one that has the list."""
    for step in loc:
        if isinstance(step, int):
            continue
        annotation = _annotation(model, step)
        below = (annotation, *get_args(annotation))
        model = next((part for part in below if isinstance(part, type) and issubclass(part, Part)), model)
    return model
