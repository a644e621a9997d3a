"""What TensorRT says, kept instead of printed and put into plain words."""

from __future__ import annotations

import collections
import functools
import re
from collections.abc import Iterable
from typing import Any

KEPT = 200
"""Messages a logger remembers; TensorRT repeats itself, and the first ones name the cause."""

WRAPPED = re.compile(r"^[\w:]+: Error Code \d+: [\w ]+ \((?P<fact>.*?)\)?$", re.DOTALL)
"""`IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (fact. In validate at /_src/network.cpp:4)`"""
SOURCE_LINE = re.compile(r"\s*In \w+ at \S+:\d+\)?$")
ASSERTION = re.compile(r'^.*&& "(?P<quoted>.*)"$|^Assertion failed: .*?: (?P<reason>.*)$', re.DOTALL)
"""`(antialias == 0) && "Antialiasing is not supported."` or `Assertion failed: isZero(x): Must be zero.`"""
NOISE = re.compile(r"catchCudaError|^ModelImporter\.cpp|^Invalid Node - |^false$|^\s*$|logger passed into")
"""Lines that follow from another one, or that name TensorRT's own source instead of a fact."""


@functools.cache
def logger(library: Any) -> Any:
    """The logger of one TensorRT library, `tensorrt` or `tensorrt_rtx`: it prints nothing.

    There is one per process, because TensorRT keeps the first logger it is given and ignores any other while
    a builder or runtime lives.

    Returns:
        An `ILogger` whose method `take()` returns the warnings and errors since it was last called.
    """

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)  # TensorRT crashes if a subclass leaves this out
            self._kept: collections.deque[str] = collections.deque(maxlen=KEPT)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(library.ILogger.WARNING):
                self._kept.append(message)

        def take(self) -> list[str]:
            messages = list(self._kept)
            self._kept.clear()
            return messages

    return Log()


def in_plain_words(messages: Iterable[str]) -> str:
    """TensorRT's messages as sentences: without its source lines, its error codes, and what repeats.

    >>> in_plain_words(["IBuilder::build: Error Code 4: API Usage Error (No profile. In check at /_src/a.cpp:3)"])
    'No profile.'
    """
    lines = [line for message in messages for line in message.splitlines()]
    facts = [_fact(line) for line in lines if not NOISE.search(line)]
    return " ".join(dict.fromkeys(fact if fact.endswith(".") else fact + "." for fact in facts))


def _fact(line: str) -> str:
    if wrapped := WRAPPED.match(line):
        line = SOURCE_LINE.sub("", wrapped["fact"])
    if assertion := ASSERTION.match(line):
        line = assertion["quoted"] or assertion["reason"]
    return line.strip()
