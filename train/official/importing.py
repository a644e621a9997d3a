"""Reading a checkpoint as its authors published it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from roadseg.runtime import CheckpointError, ModelSpec, Size, UsageError

from ..checkpoint import read_weights
from ..models import MODELS, build, require_known
from . import (
    ccnet,
    coincheung,
    danet,
    ddrnet,
    decouplesegnets,
    denseaspp,
    dfanet,
    duc_hdc,
    emanet,
    enet,
    espnet,
    fast_scnn,
    fast_seg,
    gald_dgcnet,
    ocnet,
    pidnet,
    refinenet,
    segformer,
    semseg,
    sfsegnets,
    stdc_seg,
    swiftnet,
    torchseg,
)
from .mxnet import read_params
from .source import Source
from .translate import Translation, translate

SOURCES: tuple[Source, ...] = (
    *fast_scnn.SOURCES,
    *coincheung.SOURCES,
    *ddrnet.SOURCES,
    *pidnet.SOURCES,
    *stdc_seg.SOURCES,
    *swiftnet.SOURCES,
    *enet.SOURCES,
    *espnet.SOURCES,
    *denseaspp.SOURCES,
    *dfanet.SOURCES,
    *fast_seg.SOURCES,
    *sfsegnets.SOURCES,
    *decouplesegnets.SOURCES,
    *segformer.SOURCES,
    *ccnet.SOURCES,
    *ocnet.SOURCES,
    *emanet.SOURCES,
    *danet.SOURCES,
    *semseg.SOURCES,
    *gald_dgcnet.SOURCES,
    *torchseg.SOURCES,
    *refinenet.SOURCES,
    *duc_hdc.SOURCES,
)
"""Every repository and network whose checkpoints are understood."""

FULL_FRAME: Size = (1024, 2048)
"""Of Cityscapes, in pixels; the size of an imported network that is not told another."""


class Imported(NamedTuple):
    """A network with the authors' weights, and the contract for its pixels."""

    net: nn.Module
    spec: ModelSpec


def import_checkpoint(name: str, path: Path | str, *, size: Size = FULL_FRAME, repository: str = "") -> Imported:
    """The network `name` with the weights that its authors published, in evaluation mode.

    Args:
        name: key of MODELS.
        path: the authors' file, in whatever envelope it came.
        size: of the frames; brought to the nearest size that the network takes.
        repository: whose form of the network it is ("owner/name"), where several fit; the first of SOURCES that
            matches without it.

    Raises:
        UsageError: if there is no such network, or no repository of it is known.
        CheckpointError: if a key is missing, unexpected or of another shape.
    """
    translation = read_official(name, Path(path), repository)
    if translation.problems:
        raise CheckpointError(explain(translation, Path(path)))
    return Imported(load_translated(translation), spec_of(translation.source, size))


def load_translated(translation: Translation) -> nn.Module:
    """The network with the weights that fit it, in evaluation mode; others keep their random start."""
    source = translation.source
    net = build(source.net, len(source.classes))
    own = net.state_dict()
    fitting = {key: value for key, value in translation.weights.items() if value.shape == own[key].shape}
    net.load_state_dict({**own, **fitting})
    return net.eval()


def read_official(name: str, path: Path, repository: str = "") -> Translation:
    """The account of every key of the authors' file, by the repository that it fits best.

    Raises:
        UsageError: if there is no such network, or no repository of it is known.
        CheckpointError: if the file is damaged or holds anything but weights.
    """
    candidates = sources_of(name, repository)
    weights = read_params(path) if path.suffix == ".params" else read_weights(path)
    with torch.device("meta"):  # keys and shapes only
        nets = [build(source.net, len(source.classes)) for source in candidates]
    translations = (translate(weights, source, net) for source, net in zip(candidates, nets, strict=True))
    return min(translations, key=lambda translation: translation.problems)


def sources_of(name: str, repository: str = "") -> list[Source]:
    """The repositories whose checkpoints of the network are understood.

    Raises:
        UsageError: if there is none, or none called `repository`.
    """
    require_known(name.partition("@")[0])
    known = [source for source in SOURCES if name in (source.net, source.net.partition("@")[0])]
    chosen = [source for source in known if source.repository.startswith(repository)]
    if not chosen:
        of = f"of {repository} " if repository else ""
        names = ", ".join(source.repository for source in known) or "none"
        raise UsageError(f"no checkpoint {of}is known for {name}; known repositories: {names}.")
    return chosen


def spec_of(source: Source, size: Size) -> ModelSpec:
    """The contract of a repository's network, at the legal size next to `size`."""
    key = source.net.partition("@")[0]
    preprocessing = source.preprocessing
    return ModelSpec(
        source.net,
        *MODELS[key].sizes.nearest(size),
        source.classes,
        channels=preprocessing.channels,
        mean=preprocessing.mean,
        std=preprocessing.std,
        align_corners=source.align_corners,
    )


def explain(translation: Translation, path: Path) -> str:
    """Why a file is not the checkpoint it should be, in one sentence."""
    parts = {
        "missing": translation.missing,
        "unexpected": translation.unexpected,
        "of another shape": translation.misshapen,
    }
    listed = "; ".join(f"{len(keys)} {what}, e.g. {', '.join(keys[:3])}" for what, keys in parts.items() if keys)
    return (
        f"{path} is not a checkpoint of {translation.source.net} as {translation.source.repository} saves it: "
        f"{listed}."
    )
