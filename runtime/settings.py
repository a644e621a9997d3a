"""TOML files read straight into dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .errors import UsageError

T = TypeVar("T")


def read_settings(path: Path, kind: type[T], defaults: Mapping[str, Any] | None = None) -> T:
    """A TOML file as a dataclass.

    Args:
        path: the file.
        kind: the dataclass.
        defaults: fields for where the file says nothing, nested like it.

    Raises:
        UsageError: if the file is missing or not TOML, or a setting is unknown, missing or of another type.
    """
    try:
        given = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}.") from error
    return to_settings(given, kind, defaults, str(path))


def to_settings(given: Mapping[str, Any], kind: type[T], defaults: Mapping[str, Any] | None, source: str) -> T:
    """Nested mappings as a dataclass; `source` is named in errors. See `read_settings`."""
    try:
        settings = msgspec.convert(merge(defaults or {}, given), kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{source}: {error}.") from error
    unknown = unknown_keys(given, msgspec.to_builtins(settings))
    if unknown:
        raise UsageError(f"{source}: there is no setting {', '.join(unknown)}. Is it misspelt?")
    return settings


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one; where both say something, `above` holds.

    >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
    {'a': {'x': 1, 'y': 3}}
    """
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def unknown_keys(given: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of `given` that `known` lacks.

    >>> unknown_keys({"a": {"x": 1, "z": 2}, "b": 3}, {"a": {"x": 0}})
    ['a.z', 'b']
    """
    unknown = []
    for key, value in given.items():
        if key not in known:
            unknown.append(prefix + key)
        elif isinstance(value, Mapping) and isinstance(known[key], Mapping):
            unknown += unknown_keys(value, known[key], f"{prefix}{key}.")
    return unknown
