"""How far a calibration has come, kept in a file, so that one that was killed goes on from there."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import msgspec
import numpy as np

from roadseg.runtime import require, sha256_bytes, write_atomically

from .methods import Method
from .ranges import Collector

log = logging.getLogger(__name__)

LAYOUT = 1
"""Of the file; raised when what is kept of a tensor changes its meaning."""


def state_path(out: Path) -> Path:
    """Where the state stands while `out` is being made."""
    return out.with_name(out.name + ".state")


def state_key(model_sha256: str, images_sha256: str, methods: tuple[Method, ...]) -> str:
    """Another one whenever what was gathered cannot be gone on with."""
    version = require("onnxruntime", "collecting ranges").__version__
    return sha256_bytes(msgspec.json.encode([LAYOUT, version, model_sha256, images_sha256, methods]))


def save_state(path: Path, key: str, collector: Collector, images: int) -> None:
    """Write what a collector has gathered from the first `images` images.

    Raises:
        ArtifactError: if the file cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, key=np.array(key), images=np.array(images), **collector.state())
    write_atomically(path, buffer.getvalue())


def load_state(path: Path, key: str, collector: Collector) -> int:
    """Give a collector what `save_state` wrote, and return the number of images that it has seen.

    That is 0 where there is no file, it was damaged, or it is of another model, list or method: calibration then
    begins anew.
    """
    if not path.is_file():
        return 0
    try:
        with np.load(path, allow_pickle=False) as file:
            state = dict(file)
        found, images = str(state["key"]), int(state["images"])
    except Exception:  # whatever zipfile and numpy raise
        log.warning("%s is damaged; calibration begins anew", path)
        return 0
    if found != key:
        log.info("%s is of another calibration; this one begins anew", path)
        return 0
    collector.restore(state)
    log.info("%s: %d images are done already", path, images)
    return images
