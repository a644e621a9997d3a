"""Steps that are not run again while nothing they depend on has changed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from roadseg import __version__
from roadseg.runtime import sha256_bytes, sha256_file, write_atomically

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Record:
    """What a finished step was made from, and what it left."""

    key: str
    """Hash of the step's settings and input files."""
    outputs: dict[str, str]
    """SHA-256 of each output, by file name."""


class Steps:
    """Runs named steps in a folder; what is recorded there and still intact is not made again.

    A record is written after its step's outputs, so an interrupted step has none and runs again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self,
        name: str,
        settings: Mapping[str, Any],
        inputs: Sequence[Path],
        outputs: Sequence[Path],
        action: Callable[[], object],
    ) -> None:
        """Do `action`, unless it was done with the same settings and inputs and left what is still there.

        Args:
            name: of the step, unique in the folder.
            settings: everything besides files that decides the result; must be JSON.
            inputs: files that the action reads.
            outputs: files that the action writes.
            action: the work.
        """
        key = step_key(settings, inputs)
        if self._done(name, key, outputs):
            log.info("%s: nothing has changed", name)
            return
        log.info("%s", name)
        action()
        record = Record(key, {path.name: sha256_file(path) for path in outputs})
        write_atomically(self._record_path(name), msgspec.json.encode(record))

    def _done(self, name: str, key: str, outputs: Sequence[Path]) -> bool:
        path = self._record_path(name)
        if not path.is_file() or not all(output.is_file() for output in outputs):
            return False
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        return record.key == key and record.outputs == {o.name: sha256_file(o) for o in outputs}

    def _record_path(self, name: str) -> Path:
        return self.folder / ".steps" / f"{name}.json"


def step_key(settings: Mapping[str, Any], inputs: Sequence[Path]) -> str:
    """Hash of settings, the content of input files, and the version of roadseg."""
    hashes = [sha256_file(path) for path in inputs]
    return sha256_bytes(msgspec.json.encode([__version__, dict(settings), hashes], order="deterministic"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote."""
    value: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    return value
