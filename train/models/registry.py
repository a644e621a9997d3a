"""Networks by name."""

from __future__ import annotations

import importlib

from torch import nn

from roadseg.runtime import UsageError

from . import (
    bisenet,
    bisenetv2,
    ccnet,
    danet,
    ddrnet,
    deeplabv3,
    deeplabv3plus,
    denseaspp,
    dfanet,
    dfn,
    dfnet,
    dgcnet,
    dsspn,
    duc_hdc,
    emanet,
    enet,
    espnet,
    fastscnn,
    galdnet,
    gffnet,
    glore,
    icnet,
    msfnet,
    ocnet,
    pidnet,
    pp_liteseg,
    psanet,
    pspnet,
    refinenet,
    sac,
    segformer,
    sfnet,
    stdc,
    swiftnet,
)
from .architecture import Architecture

MODELS: dict[str, Architecture] = {
    **deeplabv3.NETWORKS,
    **deeplabv3plus.NETWORKS,
    **pspnet.NETWORKS,
    **danet.NETWORKS,
    **glore.NETWORKS,
    **emanet.NETWORKS,
    **galdnet.NETWORKS,
    **gffnet.NETWORKS,
    **dgcnet.NETWORKS,
    **refinenet.NETWORKS,
    **sac.NETWORKS,
    **duc_hdc.NETWORKS,
    **psanet.NETWORKS,
    **dfn.NETWORKS,
    **dsspn.NETWORKS,
    **denseaspp.NETWORKS,
    **ocnet.NETWORKS,
    **ccnet.NETWORKS,
    **fastscnn.NETWORKS,
    **bisenet.NETWORKS,
    **bisenetv2.NETWORKS,
    **icnet.NETWORKS,
    **dfanet.NETWORKS,
    **swiftnet.NETWORKS,
    **enet.NETWORKS,
    **espnet.NETWORKS,
    **dfnet.NETWORKS,
    **msfnet.NETWORKS,
    **ddrnet.NETWORKS,
    **pidnet.NETWORKS,
    **stdc.NETWORKS,
    **pp_liteseg.NETWORKS,
    **sfnet.NETWORKS,
    **segformer.NETWORKS,
}
"""`MODELS[name](classes=19, aux=False, variant="")` gives the network with random weights."""


def require_known(name: str) -> None:
    """Refuse what is no key of MODELS.

    Raises:
        UsageError: if there is no such network.
    """
    if name not in MODELS:
        raise UsageError(f"there is no network {name!r}; known are {', '.join(MODELS)}.")


def build(name: str, classes: int, aux: bool = False) -> nn.Module:
    """The network called `name`: a key of MODELS, or "package.module:factory" of one from outside.

    "key@variant" is another public form of a network. A factory from outside is called without arguments.

    Raises:
        UsageError: if there is no such network, or it cannot be imported or made.
    """
    key, _, variant = name.partition("@")
    if key in MODELS:
        return MODELS[key](classes, aux, variant)
    module, colon, factory = name.partition(":")
    if not colon:
        raise UsageError(
            f"there is no network {name!r}; known are {', '.join(MODELS)}, and package.module:factory for "
            "your own."
        )
    try:
        net = getattr(importlib.import_module(module), factory)()
    except Exception as error:  # whatever code from outside raises
        raise UsageError(f"{name} cannot be made: {type(error).__name__}: {error}.") from error
    if not isinstance(net, nn.Module):
        raise UsageError(f"{name} should return a torch.nn.Module, but returned {type(net).__name__}.")
    return net
