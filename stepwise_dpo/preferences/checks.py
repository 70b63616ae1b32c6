"""Whether rows and single values pass their pydantic models, and what is wrong with them in our sentences.

Two things are seen before a model can see them: keys that a JSON object repeats, and objects of far too many keys.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from stepwise_dpo.preferences.faults import (
    MAX_CHARACTERS,
    MAX_ID_CHARACTERS,
    MAX_REPORTED,
    MAX_STEPS,
    path_of,
    seen,
    unicode_faults,
)
from stepwise_dpo.preferences.row_models import Id, Label, Meta, StepRow, Steps, Text

MAX_KEYS = 8
"""Of a row or a step. A model notes each key that it doesn't know, and a file could have millions of them."""

Row = TypeVar("Row", bound=BaseModel)
_Path = tuple[str | int, ...]

_SIDES = ("chosen", "rejected")
_NO_LABEL_NUMBER = -100
"""Stands for "no label" in tensors. Cast to bool it would say "right"."""

_TEXT: TypeAdapter[str] = TypeAdapter(Text)
_LABEL: TypeAdapter[bool | None] = TypeAdapter(Label)
_ID: TypeAdapter[str] = TypeAdapter(Id)
_META: TypeAdapter[dict[str, Any]] = TypeAdapter(Meta)
_STEPS: TypeAdapter[list[Any]] = TypeAdapter(Steps[Any])


def text_faults(value: object, path: str) -> list[str]:
    """Say what is wrong with a prompt's or a step's text; `path` is what the sentence calls it."""
    return _value_faults(_TEXT, value, path)


def label_faults(value: object, path: str) -> list[str]:
    """Say what is wrong with a step's label."""
    return _value_faults(_LABEL, value, path)


def count_faults(steps: Sequence[object], path: str) -> list[str]:
    """Say whether a side has too few or too many steps."""
    return _value_faults(_STEPS, list(steps), path)


def id_faults(value: object) -> list[str]:
    """Say what is wrong with a pair's id."""
    return _value_faults(_ID, value, "id")


def meta_faults(value: object) -> list[str]:
    """Say what is wrong with a pair's meta, at every depth of it."""
    return _value_faults(_META, value, "meta")


def checked(kind: type[Row], row: dict[str, Any]) -> Row | list[str]:
    """Validate a row.

    Args:
        kind: the model that it shall fit.
        row: an object; if `rows.parse_json` made it, the keys that it repeats are known.

    Returns:
        The row as the model; or what is wrong with it by field, and of what the model finds the first MAX_REPORTED.
    """
    faults = []
    for path, part in _objects(row):
        faults += [f"{path_of((*path, key))} is given twice" for key in getattr(part, "repeated", ())]
        if len(part) > MAX_KEYS:
            known = ", ".join(_known_keys(StepRow if path else kind))
            return [*faults, f"{path_of(path)} has {len(part):,} keys; known are {known}".strip()]
    try:
        made = kind.model_validate(row)
    except ValidationError as error:
        return faults + _row_faults(error, kind, row)
    return faults or made


def _objects(row: dict[str, Any]) -> Iterator[tuple[_Path, dict[str, Any]]]:
    """Find what has keys of ours: the row, and its steps that are objects."""
    yield (), row
    for side in _SIDES:
        steps = row.get(side)
        for index, step in enumerate(steps[:MAX_STEPS] if isinstance(steps, list) else ()):
            if isinstance(step, dict):
                yield (side, index), step


def _row_faults(error: ValidationError, kind: type[BaseModel], row: dict[str, Any]) -> list[str]:
    unknown: list[_Path] = []
    missing: list[_Path] = []
    others: list[tuple[ErrorDetails, _Path]] = []
    for problem in error.errors(include_url=False):
        found = problem["loc"]
        # The third part of a step's place says whether it was taken for a text or an object.
        path = (*found[:2], *found[3:]) if found and found[0] in _SIDES else found
        if problem["type"] in ("extra_forbidden", "invalid_key"):
            unknown.append(path)
        elif problem["type"] == "string_unicode" and (not found or found[2:] == ("object",)):
            unknown.append((*path, problem["input"]))  # found in an object itself, it is about a key
        elif problem["type"] == "missing":
            missing.append(path)
        else:
            others.append((problem, path))
    # Keys first: that one is misspelt explains why another is missing.
    faults = [_unknown_key(path, kind, row) for path in unknown[:MAX_REPORTED]]
    faults += [f"{path_of(path)} is missing" for path in missing[:MAX_REPORTED]]
    faults += [fault for problem, path in others[:MAX_REPORTED] for fault in _said(problem, path_of(path))]
    return faults[:MAX_REPORTED]


def _unknown_key(path: _Path, kind: type[BaseModel], row: dict[str, Any]) -> str:
    *place, key = path
    part: Any = row
    for name in place:
        part = part[name]
    known = _known_keys(StepRow if place else kind)
    near = difflib.get_close_matches(str(key).lower()[:50], [name for name in known if name not in part], 1)
    advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"{path_of((*place, str(key)))}: unknown key; {advice}"


def _known_keys(kind: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in kind.model_fields.items()]


def _value_faults(adapter: TypeAdapter[Any], value: object, path: str) -> list[str]:
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return [fault for problem in error.errors(include_url=False) for fault in _said(problem, path)]
    return []


def _said(problem: ErrorDetails, path: str) -> list[str]:
    """Say what pydantic, or a validator of ours, found wrong with the value at this path."""
    value, context = problem["input"], problem.get("ctx", {})
    match problem["type"]:
        case "string_type" | "string_too_long" if path == "id":
            words = f"be a string of at most {MAX_ID_CHARACTERS} characters, not {seen(value)}"
        case "string_type" | "string_pattern_mismatch":
            words = f"be a non-blank string, not {seen(value)}"
        case "string_too_long":
            words = f"have at most {MAX_CHARACTERS:,} characters, not {len(value):,}: {seen(value)}"
        case "string_unicode":
            return unicode_faults(value, path)
        case "bool_type":
            hint = "; a step without a label has null" if isinstance(value, int) and value == _NO_LABEL_NUMBER else ""
            words = f"be true, false or null, not {seen(value)}{hint}"
        case "list_type":
            words = f"be a list{' of steps or a string' * (path in _SIDES)}, not {seen(value)}"
        case "too_short" | "too_long":
            words = f"have 1 to {MAX_STEPS:,} {'entries' if path == 'labels' else 'steps'}, not {len(value):,}"
        case "label_count":
            words = f"have one entry for each of the {context['steps']} {context['name']}, not {len(value)}"
        case "union_tag_not_found":
            words = f"be a string or an object with text, not {seen(value)}"
        case "meta":
            return list(context["faults"])
        case _:  # a rule that nobody has written words for yet
            return [f"{path}: {problem['msg']}, not {seen(value)}"]
    return [f"{path} must {words}"]
