"""The kernels of a model's custom operators, compiled for GPUs that need not be here."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import torch

from roadseg.runtime import (
    ArtifactError,
    ExportError,
    Manifest,
    UsageError,
    sha256_bytes,
    sha256_file,
    track,
    write_atomically,
)
from roadseg.runtime.onnxfile import CUSTOM_DOMAIN, load_onnx, onnx_spec
from roadseg.runtime.plugins import (
    DATA_TYPES,
    SHARED_BYTES,
    Kernel,
    Launch,
    Package,
    TensorType,
    compress,
    write_package,
)

from .ops import OPS
from .ops.compile import PTX_VERSIONS, alignments, architectures, compile_call, require_compiler
from .ops.kernel import answering

if TYPE_CHECKING:
    from .ops.compile import Compiled
    from .ops.kernel import Call
    from .ops.kernel import Kernel as Source

CACHE_LAYOUT = 1
"""Raised when code is compiled in another way than a cached one was."""


@dataclasses.dataclass(frozen=True)
class Code:
    """What a compiler makes of a kernel for one kind of GPU; calls may share it."""

    entry: str
    ptx: str
    threads: int
    shared_bytes: int


def write_kernels(model: Path, compute_capabilities: Sequence[str], out: Path) -> Manifest:
    """Compile a kernel for every custom operator of an ONNX model and write them as a package.

    Args:
        model: as `roadseg export` or `roadseg quantize` writes it; types and shapes are those of its graph.
        compute_capabilities: of the GPUs that engines will be built for, e.g. "8.7"; at least one.
        out: the package; its manifest goes beside it.

    Raises:
        ArtifactError: if the model is missing, cut short, or has no ModelSpec.
        BuildError: if Triton refuses a kernel.
        ExportError: if the model's nodes cannot be told apart.
        MissingDependencyError: if Triton is not installed.
        UsageError: if the model has no custom operators, or a GPU is none that kernels are compiled for.
    """
    proto = load_onnx(model)
    spec = onnx_spec(proto, model)
    nodes = custom_nodes(proto, model)
    if not nodes:
        raise UsageError(f"{model} has no custom operators, so there is nothing to compile; build it as it is.")
    types = tensor_types(proto)
    left = {name: why for name, node in nodes.items() if (why := why_not(node, types))}
    work = [(name, gpu) for gpu in dict.fromkeys(compute_capabilities) for name in nodes if name not in left]
    versions = {require_compiler(gpu).__version__ for gpu in compute_capabilities}
    kernels = [(name, gpu, kernel_for(nodes[name], types, gpu)) for name, gpu in track(work, "compile")]
    return write_package(out, Package.of(kernels, left), spec, sha256_file(model), versions.pop())


def custom_nodes(model: onnx.ModelProto, path: Path) -> dict[str, onnx.NodeProto]:
    """The nodes of our own domain by name.

    Raises:
        ExportError: if two have the same name, or one has none.
    """
    nodes = [node for node in model.graph.node if node.domain == CUSTOM_DOMAIN]
    names = collections.Counter(node.name for node in nodes)
    if wrong := [name for name, count in names.items() if count > 1 or not name]:
        raise ExportError(
            f"kernels are found by the names of nodes, but {path} has several called {wrong[0]!r}, or one without "
            "a name. Export it with `roadseg export`, which names them all differently."
        )
    return {node.name: node for node in nodes}


def tensor_types(model: onnx.ModelProto) -> dict[str, TensorType]:
    """Type and shape of every tensor for which both are fixed.

    ONNX does not see through all bodies of our operators; their references tell what it cannot.
    """
    model = copied(model)
    while True:
        types = inferred_types(model)
        found = {
            node.output[0]: answer_of(node, types)
            for node in model.graph.node
            if node.domain == CUSTOM_DOMAIN and not why_not(node, types) and node.output[0] not in types
        }
        if not found:
            return types
        describe(model.graph, found)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that can be changed without the other."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def inferred_types(model: onnx.ModelProto) -> dict[str, TensorType]:
    """What ONNX infers of what `tensor_types` is about."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise ExportError(f"the shapes of this model contradict each other: {error}") from error
    weights = {
        tensor.name: TensorType(numpy_name(tensor.data_type), tuple(tensor.dims)) for tensor in graph.initializer
    }
    values = [*graph.input, *graph.value_info, *graph.output]
    return {value.name: found for value in values if (found := fixed_type(value.type.tensor_type))} | weights


def describe(graph: onnx.GraphProto, types: dict[str, TensorType]) -> None:
    """Note the types of tensors in a graph, in place of what it says of them."""
    others = [value for value in graph.value_info if value.name not in types]
    known = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype)), kind.shape
        )
        for name, kind in types.items()
    ]
    del graph.value_info[:]
    graph.value_info.extend([*others, *known])


def answer_of(node: onnx.NodeProto, types: dict[str, TensorType]) -> TensorType:
    """What a node answers with, by its operator's reference."""
    op = OPS[node.op_type]
    return type_of(op.reference(*arguments_of(node, types)))


def arguments_of(node: onnx.NodeProto, types: dict[str, TensorType]) -> tuple[Any, ...]:
    """The operator's arguments in the call that a node stands for, tensors on the meta device."""
    return OPS[node.op_type].call([on_meta(types[name]) for name in node.input], attributes_of(node))


def type_of(tensor: torch.Tensor) -> TensorType:
    """Of a tensor of PyTorch."""
    return TensorType(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def fixed_type(kind: onnx.TypeProto.Tensor) -> TensorType | None:
    """A tensor's type; None where a dimension is open or nothing is known of them."""
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return TensorType(numpy_name(kind.elem_type), shape)


def numpy_name(element_type: int) -> str:
    """An ONNX element type as numpy calls it."""
    return str(onnx.helper.tensor_dtype_to_np_dtype(element_type).name)


def why_not(node: onnx.NodeProto, types: dict[str, TensorType]) -> str:
    """Why there can be no kernel for a node; "" if there can."""
    if node.op_type not in OPS:
        return f"this roadseg has no operator {node.op_type}"
    if OPS[node.op_type].kernel is None:
        return f"{node.op_type} has no kernel"
    if missing := [name for name in node.input if name not in types]:
        return f"the shape of {missing[0]} is open; export the model with a fixed batch"
    return ""


def kernel_for(node: onnx.NodeProto, types: dict[str, TensorType], compute_capability: str) -> Kernel:
    """The compiled kernel of a node, from the cache where it was compiled before."""
    source = OPS[node.op_type].kernel
    assert source is not None
    for architecture in architectures(compute_capability):
        call = source.call_for(*arguments_of(node, types), architecture=architecture)
        answer = type_of(call.answer)
        if answer.dtype not in DATA_TYPES:
            call = answering(call, floating_type(node, types))
        code = cached(source, call, compute_capability)
        if code.shared_bytes <= SHARED_BYTES:
            break
    launch = Launch(
        op=node.op_type,
        inputs=tuple(types[name] for name in node.input),
        output=type_of(call.answer),
        cast_to=answer.dtype,
        entry=code.entry,
        ptx_sha256=sha256_bytes(code.ptx.encode()),
        grid=call.grid,
        threads=code.threads,
        shared_bytes=code.shared_bytes,
        integers=tuple(call.integers.values()),
    )
    return Kernel(launch, compress(code.ptx))


def floating_type(node: onnx.NodeProto, types: dict[str, TensorType]) -> torch.dtype:
    """The type of a node's first floating-point input; float16 holds every value of uint8 too."""
    inputs = [on_meta(types[name]) for name in node.input]
    return next((x.dtype for x in inputs if x.is_floating_point()), torch.float32)


def on_meta(kind: TensorType) -> torch.Tensor:
    """A tensor without values."""
    return torch.empty(kind.shape, dtype=getattr(torch, kind.dtype), device="meta")


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def cached(source: Source, call: Call, compute_capability: str) -> Code:
    """Code from the user's cache; it is compiled and put there where it is not in it, or cannot be read."""
    path = cache_folder() / f"{cache_key(source, call, compute_capability)}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Code)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        code = own_code(compile_call(source, call, compute_capability))
    with contextlib.suppress(ArtifactError):  # a home that cannot be written
        write_atomically(path, msgspec.json.encode(code))
    return code


def own_code(made: Compiled) -> Code:
    """Code under a name of its own: nothing says that TensorRT tells kernels of one name in an engine apart."""
    entry = f"{made.name}_{sha256_bytes(made.ptx.encode())[:8]}"
    ptx = re.sub(rf"\b{re.escape(made.name)}(?=\b|_param_)", entry, made.ptx)
    return Code(entry, ptx, made.threads, made.shared_bytes)


def cache_folder() -> Path:
    """Where compiled code is kept between runs, as the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roadseg" / "kernels"


def cache_key(source: Source, call: Call, compute_capability: str) -> str:
    """Another one whenever the compiler could make something else.

    Integers are passed at run time, so they count only as far as code is made for multiples of 16.
    """
    described = [
        CACHE_LAYOUT,
        source.jit.cache_key,  # Triton's hash of the function and of all it calls
        call.signature,
        {name: repr(value) for name, value in call.constants.items()},
        sorted(alignments(call)),
        call.options,
        compute_capability,
        PTX_VERSIONS[compute_capability],
        require_compiler(compute_capability).__version__,
    ]
    return sha256_bytes(msgspec.json.encode(described, order="deterministic"))
