"""What a pair's meta may hold: JSON of limited depth and size, with values that every JSON reader understands.

A walk of our own, because pydantic's types express neither how deep JSON is nested nor how many values it holds.
"""

import math

from stepwise_dpo.preferences.faults import MAX_META_DEPTH, MAX_META_VALUES, path_of, seen, unicode_faults

_Path = tuple[str | int, ...]  # written out only where something is wrong, since that takes the longest


def json_faults(meta: object) -> list[str]:
    """Say what is wrong with a pair's meta, at every depth of it; it may be anything, and may hold itself."""
    if not isinstance(meta, dict):
        return [f"meta must be an object, not {seen(meta)}"]
    faults: list[str] = []
    visited = 0
    waiting: list[tuple[object, _Path]] = [(meta, ("meta",))]
    while waiting:
        value, path = waiting.pop()
        visited += 1
        if not isinstance(value, (dict, list)):
            faults += _scalar_faults(value, path)
            continue
        if isinstance(value, dict):
            faults += _key_faults(value, path)
        if len(path) > MAX_META_DEPTH:
            return [*faults, f"meta must be nested at most {MAX_META_DEPTH} levels deep"]
        if visited + len(waiting) + len(value) > MAX_META_VALUES:
            return [*faults, f"meta must hold at most {MAX_META_VALUES:,} values"]
        parts: list[tuple[object, _Path]] = (
            [(part, (*path, key)) for key, part in value.items() if isinstance(key, str)]
            if isinstance(value, dict)
            else [(part, (*path, index)) for index, part in enumerate(value)]
        )
        waiting += reversed(parts)
    return faults


def _key_faults(value: dict[object, object], path: _Path) -> list[str]:
    faults = [f"{path_of((*path, key))} is given twice" for key in getattr(value, "repeated", ())]
    for key in value:
        if not isinstance(key, str):
            faults.append(f"{path_of(path)} must have strings as keys, not {seen(key)}")
        elif not key.isascii():
            faults += unicode_faults(key, f"a key of {path_of(path)}")
    return faults


def _scalar_faults(value: object, path: _Path) -> list[str]:
    if isinstance(value, str):
        return [] if value.isascii() else unicode_faults(value, path_of(path))
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, float):
        return [] if math.isfinite(value) else [f"{path_of(path)} must be a finite number, not {value}"]
    if isinstance(value, int):
        # What 64 bits hold is what the JSON readers downstream agree on.
        fits = -(2**63) <= value < 2**64
        return [] if fits else [f"{path_of(path)} must be an integer within 64 bits, not {seen(value)}"]
    return [f"{path_of(path)} must be JSON, not {seen(value)}"]
