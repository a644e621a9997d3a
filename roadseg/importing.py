"""From the authors' checkpoint to ours: what `roadseg import` does."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

from roadseg.runtime import CheckpointError, ModelSpec, Size, UsageError, sha256_file


@dataclasses.dataclass(frozen=True)
class ImportReport:
    """What became of every key, and what was written."""

    out: Path | None
    """The checkpoint; None if it was not written because keys do not match."""
    repository: str
    """Whose form of the network it is, and the commit that was read."""
    spec: ModelSpec
    mapped: dict[str, str]
    """Our key by theirs."""
    dropped: dict[str, str]
    """Why, by their key."""
    filled: dict[str, str]
    """Why, by our key: what a checkpoint may leave out."""
    missing: tuple[str, ...]
    """Our keys that nothing was found for."""
    unexpected: tuple[str, ...]
    """Their keys that nothing is known about."""
    misshapen: tuple[str, ...]
    """Their keys with both shapes, where these differ."""
    refusal: str
    """Why nothing was written; empty if something was."""

    def summary(self) -> dict[str, Any]:
        """The same without the keys that were mapped one to one, and the others counted by reason."""
        return {
            "out": self.out,
            "repository": self.repository,
            "network": self.spec.name,
            "mapped": len(self.mapped),
            "dropped": dict(collections.Counter(self.dropped.values())),
            "filled": dict(collections.Counter(self.filled.values())),
            "missing": self.missing,
            "unexpected": self.unexpected,
            "misshapen": self.misshapen,
        }

    def raise_for_refusal(self) -> None:
        """Raise CheckpointError if nothing was written."""
        if self.refusal:
            raise CheckpointError(self.refusal)


def import_file(
    net: str, source: Path, out: Path, *, size: Size, repository: str = "", strict: bool = True
) -> ImportReport:
    """Write the authors' checkpoint `source` of the network `net` as one of ours.

    Args:
        net: key of `roadseg.train.MODELS`.
        source: the authors' file.
        out: a `.safetensors` file.
        size: of the model; the nearest legal size is taken.
        repository: "owner/name", where several fit.
        strict: refuse a file whose keys do not all match. Otherwise what is missing or of another shape keeps its
            random start, for training to go on from there.

    Raises:
        UsageError: if there is no such network or repository, or `out` has another suffix.
        CheckpointError: if the file is damaged or holds anything but weights.
    """
    from roadseg.train import Checkpoint, save_checkpoint
    from roadseg.train.official import explain, load_translated, read_official, spec_of

    if out.suffix != ".safetensors":
        raise UsageError(f"a checkpoint is a .safetensors file; got {out}.")
    translation = read_official(net, source, repository)
    refused = strict and translation.problems > 0
    origin = translation.source
    report = ImportReport(
        out=None if refused else out,
        repository=origin.repository,
        spec=spec_of(origin, size),
        mapped=translation.mapped,
        dropped=translation.dropped,
        filled=translation.filled,
        missing=translation.missing,
        unexpected=translation.unexpected,
        misshapen=translation.misshapen,
        refusal=explain(translation, source) if refused else "",
    )
    if not refused:
        provenance = {"imported_from": origin.repository, "imported_sha256": sha256_file(source)}
        if translation.problems:
            provenance["imported_incomplete"] = explain(translation, source)
        weights = load_translated(translation).state_dict()
        save_checkpoint(out, Checkpoint(report.spec, weights, provenance))
    return report
