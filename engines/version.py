"""Versions of TensorRT, so that they can be compared."""

from __future__ import annotations

Version = tuple[int, ...]


def parse_version(version: str) -> Version:
    """The numbers of a version.

    >>> parse_version("10.13.3.9.post1")
    (10, 13, 3, 9)
    """
    return tuple(int(part) for part in version.split(".") if part.isdigit())
