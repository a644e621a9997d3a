"""Progress of anything that takes longer than two seconds, on standard error."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

QUIET_S = 2.0
"""Nothing is shown before this."""
PLAIN_INTERVAL_S = 15.0
"""Between two lines where standard error is not a terminal."""


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, showing how far it is and how long it will take.

    A bar on a terminal, a line now and then in a log; nothing for what ends within two seconds.

    Args:
        items: what to yield.
        what: shown before the bar, e.g. "calibrate".
        total: how many there are; taken from `len(items)` where that works.
    """
    if total is None:
        total = len(items) if isinstance(items, Sized) else None
    yield from (_bar if sys.stderr.isatty() else _lines)(items, what, total)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show that one long call is still at work, and for how long; nothing for what ends within two seconds.

    Args:
        what: shown before the time, e.g. "build m.plan".
    """
    done = threading.Event()
    shown = threading.Thread(target=_spin if sys.stderr.isatty() else _remind, args=(what, done), daemon=True)
    shown.start()
    try:
        yield
    finally:
        done.set()
        shown.join()


def _spin(what: str, done: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if done.wait(QUIET_S):
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(what, total=None)
        done.wait()


def _remind(what: str, done: threading.Event) -> None:
    begun = time.monotonic()
    while not done.wait(PLAIN_INTERVAL_S):
        print(f"{what}: at work for {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)  # noqa: T201


def _bar(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    begun = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=False) as progress:
        task = progress.add_task(what, total=total, visible=False)
        for item in items:
            yield item
            progress.update(task, advance=1, visible=time.monotonic() - begun > QUIET_S)


def _lines(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    begun = time.monotonic()
    due = begun + PLAIN_INTERVAL_S
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now >= due:
            due = now + PLAIN_INTERVAL_S
            left = f", {(now - begun) / done * (total - done):.0f} s left" if total else ""
            print(f"{what}: {done}{f' of {total}' if total else ''}{left}", file=sys.stderr, flush=True)  # noqa: T201
