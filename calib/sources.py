"""What an INT8 model can be made from: a float model as it is and equalised, with ranges by every method."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from roadseg.runtime import Dataset, manifest_path, sha256_bytes, sha256_file, write_atomically
from roadseg.runtime.artifacts import read_bytes

from .calibrate import calibrate_each, files_by_method
from .equalise import equalise, is_equalised
from .methods import METHODS


@dataclasses.dataclass(frozen=True)
class Source:
    """A float model and a file of its ranges."""

    model: Path
    ranges: Path


def make_sources(model: Path, dataset: Dataset, folder: Path) -> list[Source]:
    """Equalise a model and calibrate both by every method; what a folder has already is not made again.

    Args:
        model: float32, as `export` or `equalise` writes it.
        dataset: of which images are chosen, see `equalise` and `calibrate`.
        folder: of `sources_folder`, so that nothing in it is of another model or of other images.

    Raises:
        ArtifactError: if a file cannot be read or written.
        CalibrationError: if the model or the images cannot be used, see `calibrate`.
        DataError: if an image cannot be read.
    """
    models = [model]
    if not is_equalised(model):
        models.append(folder / f"{model.stem}_equalised.onnx")
        if not models[-1].exists():
            equalise(model, dataset, out=models[-1])
    found = []
    for source in models:
        files = files_by_method(folder / f"{source.stem}.ranges", METHODS)
        if not all(manifest_path(file).exists() for file in files.values()):
            calibrate_each(source, dataset, files)
        found += [Source(source, file) for file in files.values()]
    return found


def sources_folder(model: Path, dataset: Dataset, out: Path) -> Path:
    """Where the sources of the INT8 model at `out` are made: a folder beside it."""
    facts = (sha256_file(model), dataset.name, dataset.split, dataset.fingerprint)
    return out.with_name(f"{out.stem}.{sha256_bytes(' '.join(facts).encode())[:12]}.sources")


def keep(source: Source, model: Path, out: Path) -> Source:
    """Leave a source that `make_sources` has made beside the INT8 model at `out`, and remove the others.

    Returns:
        The source as it stands there: its ranges have the suffix ".ranges", and its model, unless that is `model`
        itself, is `<out>_equalised.onnx`.
    """
    kept = Source(model, out.with_suffix(".ranges"))
    if source.model != model:
        kept = dataclasses.replace(kept, model=out.with_name(f"{out.stem}_equalised.onnx"))
        write_atomically(kept.model, read_bytes(source.model))
    write_atomically(kept.ranges, read_bytes(source.ranges))
    write_atomically(manifest_path(kept.ranges), read_bytes(manifest_path(source.ranges)))
    shutil.rmtree(source.ranges.parent)
    return kept
