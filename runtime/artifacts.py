"""Files that are either complete and what they claim to be, or refused.

Everything roadseg writes goes through `atomic_path`: a reader sees the old file or the new one, never a part.
A file that cannot describe itself (a plan, ranges) has a manifest beside it, `<file>.json`, with the
hashes of the file and of all it was made from. A manifest carries a hash of its own text, so an edited one is
noticed. Nothing in an artifact depends on when or where it was made: the same inputs give the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .errors import ArtifactError, SpecError
from .spec import ModelSpec

SCHEMA = 1
"""Version of the manifest's layout; raised when a field changes its meaning."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a file is, and what it was made from."""

    kind: str
    """"plan", "ranges" or "kernels"."""
    file_sha256: str
    """Of the file beside the manifest."""
    spec: ModelSpec
    inputs: dict[str, str]
    """SHA-256 of everything the file was made from, by role: "onnx", "calibration", ..."""
    details: dict[str, Any]
    """What only this kind has; read it with `details_as`."""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    """Software that made the file."""
    schema: int = SCHEMA
    manifest_sha256: str = ""
    """Of this manifest's canonical JSON with this field empty."""

    def signed(self) -> Manifest:
        """The same manifest with its own hash filled in."""
        return dataclasses.replace(self, manifest_sha256=sha256_bytes(self._canonical()))

    def to_json(self) -> bytes:
        """The text of the manifest file, the same for the same manifest."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"

    def details_as(self, kind: type[T]) -> T:
        """`details` as a dataclass.

        Raises:
            ArtifactError: if a field is missing or of another type.
        """
        try:
            return msgspec.convert(self.details, kind)
        except msgspec.ValidationError as error:
            raise ArtifactError(f"this manifest's details are not those of a {self.kind}: {error}.") from error

    def _canonical(self) -> bytes:
        return msgspec.json.encode(dataclasses.replace(self, manifest_sha256=""), order="deterministic")


def manifest_path(path: Path) -> Path:
    """Where the manifest of `path` stands."""
    return path.with_name(path.name + ".json")


def write_with_manifest(path: Path, data: bytes, manifest: Manifest) -> Manifest:
    """Write a file and its manifest, each atomically, the file first.

    Returns the manifest as `read_manifest` gives it.

    Interrupted between the two, the old manifest no longer fits the new file and `read_manifest` refuses it.
    """
    write_atomically(path, data)
    text = dataclasses.replace(manifest, file_sha256=sha256_bytes(data)).signed().to_json()
    write_atomically(manifest_path(path), text)
    return msgspec.json.decode(text, type=Manifest)


def read_manifest(path: Path, kind: str) -> Manifest:
    """The manifest beside `path`, once it and the file have been checked.

    Raises:
        ArtifactError: if either is missing, the manifest was edited or is of another schema or kind, or the
            file is not the one it was written for.
    """
    data = read_bytes(path)
    manifest = _parse_manifest(path)
    if manifest.kind != kind:
        raise ArtifactError(f"{path} is a {manifest.kind}, not a {kind}.")
    if manifest.file_sha256 != sha256_bytes(data):
        raise ArtifactError(
            f"{path} is not the file its manifest describes (it was replaced, cut short, or its making was "
            "interrupted). Make it again."
        )
    return manifest


def _parse_manifest(path: Path) -> Manifest:
    beside = manifest_path(path)
    if not beside.is_file():
        raise ArtifactError(
            f"{path} has no manifest ({beside.name} is missing), so nothing says what it is. "
            "Make it again with roadseg."
        )
    text = read_bytes(beside)
    try:
        schema = msgspec.json.decode(text, type=_Versioned).schema
        if schema != SCHEMA:
            raise ArtifactError(
                f"{beside} has schema {schema}, this roadseg reads {SCHEMA}. "
                f"Make {path.name} again with this version."
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, SpecError) as error:
        raise ArtifactError(f"{beside} is not a roadseg manifest ({error}). Make {path.name} again.") from error
    # The whole text, and not only the fields that this version knows.
    if text != manifest.signed().to_json():
        raise ArtifactError(f"{beside} was edited after roadseg wrote it. Make {path.name} again.")
    return manifest


@dataclasses.dataclass(frozen=True)
class _Versioned:
    """What manifests of every schema have in common."""

    schema: int


def read_bytes(path: Path) -> bytes:
    """The content of `path`.

    Raises:
        ArtifactError: if it does not exist or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}.") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, or leave it as it was."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` (same suffix) to write to; it takes the place of `path` when the block succeeds.

    What runs that were killed left behind when they wrote `path` is removed.

    Raises:
        ArtifactError: if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}.") from error
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content.

    Raises:
        ArtifactError: if it cannot be read.
    """
    return sha256_bytes(read_bytes(path))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_leftovers(path: Path) -> None:
    temporary = re.compile(rf"\.{re.escape(path.stem)}\.(\d+)-[0-9a-f]{{8}}{re.escape(path.suffix)}")
    for file in path.parent.iterdir():
        match = temporary.fullmatch(file.name)
        if match and not _is_alive(int(match[1])):
            file.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
