"""The ONNX model an engine is built from, with what it says about itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import msgspec

from roadseg.runtime import ArtifactError, BuildError, ModelSpec, sha256_bytes
from roadseg.runtime.artifacts import read_bytes
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, metadata, onnx_spec, parse_onnx
from roadseg.runtime.plan import Precision

if TYPE_CHECKING:
    import onnx


@dataclasses.dataclass(frozen=True)
class Model:
    """An ONNX file that was read and found to be a roadseg model."""

    path: Path
    data: bytes
    """The file, as the parser gets it."""
    sha256: str
    graph: onnx.GraphProto
    spec: ModelSpec
    precision: Precision
    """Of the graph."""
    provenance: dict[str, str]

    @property
    def quantised(self) -> bool:
        """Whether ranges are in the graph, as Q/DQ nodes."""
        return any(node.op_type == "QuantizeLinear" for node in self.graph.node)

    @property
    def batch(self) -> int | None:
        """Frames in one call; None where the model leaves it open."""
        return self.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None


def read_model(path: Path) -> Model:
    """Read an ONNX model.

    Raises:
        ArtifactError: if it is not one that roadseg wrote, or was cut short.
        BuildError: if it does not have one input and one output.
    """
    data = read_bytes(path)
    proto = parse_onnx(data, path)
    if len(proto.graph.input) != 1 or len(proto.graph.output) != 1:
        raise BuildError(
            f"{path} has {len(proto.graph.input)} inputs and {len(proto.graph.output)} outputs; an engine has one "
            "of each. Export the network with `roadseg export`."
        )
    texts = metadata(proto)
    return Model(
        path,
        data,
        sha256_bytes(data),
        proto.graph,
        onnx_spec(proto, path),
        _precision(texts.get(PRECISION_KEY, "fp32"), path),
        msgspec.json.decode(texts.get(PROVENANCE_KEY, "{}"), type=dict[str, str]),
    )


def _precision(name: str, path: Path) -> Precision:
    try:
        return cast(Precision, msgspec.convert(name, Precision))
    except msgspec.ValidationError as error:
        raise ArtifactError(
            f"{path} says its precision is {name!r}; known are {', '.join(get_args(Precision))}. "
            "Make it with `roadseg quantize`."
        ) from error
