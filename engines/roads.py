"""Which way a custom operator goes into an engine: as a plugin with a compiled kernel, or by its definition.

TensorRT's parser has chosen between a plugin and a local function of the same name in four ways so far: up to 8.6
it does not know functions, from 9.0 to 10.6 a function goes before a plugin, from 10.7 to 10.14 a plugin that is
registered goes before the function, and since 10.15 the function does again unless the node names the plugin's
namespace (onnx-tensorrt, docs/Changelog.md and ModelImporter.cpp). So it is left nothing to choose: what becomes a
plugin has its function taken out of the model before it is parsed, and every other call is replaced by its
definition. TensorRT-RTX takes no plugins, and refuses a function that answers with labels, for it has no uint8
inside a network: there every call is replaced by its definition.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from roadseg.runtime import BuildError, EngineError, require
from roadseg.runtime.onnxfile import CUSTOM_DOMAIN, parse_onnx, serialise
from roadseg.runtime.plan import OpRoad, PluginRoad
from roadseg.runtime.plugins import (
    ATTRIBUTE,
    DATA_TYPES,
    NAMESPACE,
    OPTION,
    SHARED_BYTES,
    Kernel,
    Launch,
    Package,
    offer,
    package_path,
    read_package,
    v3,
)

from . import aot
from .model import Model
from .settings import Settings
from .version import Version, parse_version

if TYPE_CHECKING:
    import onnx

log = logging.getLogger(__name__)

ROADS: tuple[tuple[Version, PluginRoad], ...] = (((10, 9), "plugin-aot"), ((10, 0), "plugin-v3"))
"""The kind of plugin that TensorRT takes from us since a version, newest first."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The road of every custom operator of a model, before it is parsed."""

    roads: dict[str, OpRoad]
    """By node."""
    kernels: dict[str, Kernel]
    """Of nodes that become plugins."""


def plugin_road(version: str) -> PluginRoad | None:
    """The kind of plugin that this version of TensorRT takes; None before 10.0.

    >>> plugin_road("10.3.0"), plugin_road("10.13.3.9"), plugin_road("8.6.2")
    ('plugin-v3', 'plugin-aot', None)
    """
    return next((road for since, road in ROADS if parse_version(version) >= since), None)


def custom_ops(model: Model) -> dict[str, str]:
    """Op type of every custom operator by its node; a node without a name is called by what it computes."""
    nodes = [node for node in model.graph.node if node.domain == CUSTOM_DOMAIN]
    return {node.name or node.output[0]: node.op_type for node in nodes}


def all_functions(model: Model) -> Choice:
    """Every operator by its definition."""
    return Choice({node: OpRoad(op, "function") for node, op in custom_ops(model).items()}, {})


def choose(model: Model, library: Any, compute_capability: str, settings: Settings) -> Choice:
    """The roads of a model's operators in TensorRT. Calls of one operator go the same way.

    Raises:
        ArtifactError: if the package of kernels is damaged or of another model.
        BuildError: if `settings.plugins` is "require" and an operator can be no plugin; with what to do.
    """
    if settings.plugins == "never" or not custom_ops(model):
        return all_functions(model)
    reasons, kernels = obstacles(model, library, compute_capability, settings)
    if reasons and settings.plugins == "require":
        raise BuildError(refusal(model, reasons))
    for sentence in sentences(model, reasons):
        log.info("by its definition: %s", sentence)
    road = plugin_road(library.__version__)
    ops = custom_ops(model)
    functions = {ops[node] for node in reasons}
    roads = {node: OpRoad(op, road if road and op not in functions else "function") for node, op in ops.items()}
    return Choice(roads, {node: kernel for node, kernel in kernels.items() if ops[node] not in functions})


def obstacles(
    model: Model, library: Any, compute_capability: str, settings: Settings
) -> tuple[dict[str, str], dict[str, Kernel]]:
    """Why operators can be no plugins, by node, and the kernels of all that can; errors as `choose`."""
    ops = custom_ops(model)
    if why := library_obstacle(library):
        return dict.fromkeys(ops, why), {}
    path = kernels_path(model.path, settings)
    if settings.kernels is None and not path.is_file():
        return dict.fromkeys(ops, f"there is no {path}; {command(model.path, [compute_capability], path)}"), {}
    package = read_package(path, model.sha256)
    kernels = package.kernels(compute_capability)
    how = command(model.path, [*package.compute_capabilities, compute_capability], path)
    missing = f"{path} holds no kernel for compute capability {compute_capability}; {how}"
    found = {node: obstacle(package, kernels, node, missing) for node in ops}
    return {node: why for node, why in found.items() if why}, kernels


def kernels_path(model: Path, settings: Settings) -> Path:
    """Where the kernels of a model are looked for."""
    return settings.kernels or package_path(model)


def library_obstacle(library: Any) -> str:
    """Why this TensorRT takes no plugins of ours, without a full stop; "" if it does."""
    if plugin_road(library.__version__) == "plugin-aot":
        return aot.obstacle(library)
    return v3.obstacle(library)


def obstacle(package: Package, kernels: Mapping[str, Kernel], node: str, missing: str) -> str:
    """Why one operator can be no plugin, without a full stop; "" if it can.

    Args:
        package: of the model.
        kernels: for the GPU.
        node: the operator's.
        missing: what is said where there is no kernel for this GPU.
    """
    if node in package.left:
        return package.left[node]
    if node not in kernels:
        return missing
    launch = kernels[node].launch
    if foreign := {kind.dtype for kind in launch.inputs} - DATA_TYPES.keys():
        return f"TensorRT gives plugins no {foreign.pop()} tensors"
    if launch.shared_bytes > SHARED_BYTES:
        return f"its kernel needs {launch.shared_bytes} bytes of shared memory, a plugin has {SHARED_BYTES}"
    return ""


def command(model: Path, compute_capabilities: Iterable[str], package: Path) -> str:
    """How kernels are made."""
    gpus = " ".join(map(OPTION.format, compute_capabilities))
    return (
        f"make it with: roadseg kernels {model} {gpus} --out {package} "
        "(which needs: pip install 'roadseg[export,kernels]')"
    )


def refusal(model: Model, reasons: Mapping[str, str]) -> str:
    """Say why a model cannot have plugins for all its operators."""
    return (
        f"{model.path} cannot be built with plugins for all its custom operators. "
        f"{' '.join(sentences(model, reasons))} "
        "Or build it with --plugins auto, which computes these operators by their definitions."
    )


def sentences(model: Model, reasons: Mapping[str, str]) -> list[str]:
    """Each reason once, with the operators that it keeps from being plugins."""
    ops, by_reason = custom_ops(model), defaultdict(list)
    for node, why in reasons.items():
        by_reason[why].append(f"{ops[node]} (node {node!r})")
    return [f"{', '.join(nodes)}: {why}." for why, nodes in by_reason.items()]


def provide(library: Any, model: Model, choice: Choice) -> None:
    """Register the plugins that a choice needs with TensorRT.

    Raises:
        BuildError: if TensorRT does not take one.
    """
    inputs = {kernel.launch.op: len(kernel.launch.inputs) for kernel in choice.kernels.values()}
    if not inputs:
        return
    if plugin_road(library.__version__) == "plugin-aot":
        aot.provide(library, inputs)
        return
    try:
        v3.provide(library, inputs)
    except EngineError as error:
        raise BuildError(f"{model.path} cannot be built: {error}") from error


def prepare(model: Model, choice: Choice) -> Model:
    """The model as TensorRT is to parse it: plugins without functions, and definitions in place of other calls."""
    if not choice.roads:
        return model
    proto = parse_onnx(model.data, model.path)
    nodes = list(proto.graph.node)
    for node in nodes:
        name = node.name or node.output[0]
        if node.domain == CUSTOM_DOMAIN and name in choice.kernels:
            mark_as_plugin(node, choice.kernels[name], choice.roads[name])
            cast_answer(proto.graph, node, choice.kernels[name].launch)
    plugins = {kernel.launch.op for kernel in choice.kernels.values()}
    functions = [function for function in proto.functions if function.name not in plugins]
    del proto.functions[:]
    proto.functions.extend(functions)
    inliner = require("onnx.inliner", f"building {model.path}")
    proto = inliner.inline_local_functions(proto)
    return dataclasses.replace(model, data=serialise(proto), graph=proto.graph)


def mark_as_plugin(node: onnx.NodeProto, kernel: Kernel, road: OpRoad) -> None:
    """Give a node the attributes by which the parser finds its plugin, in place of the operator's own.

    The kernel was compiled for those. The parser makes fields of the attributes that the plugin's creator names,
    integers as 32 bits each (onnx-tensorrt, onnxOpImporters.cpp, loadFields), and reads `aot` itself
    (importerUtils.cpp, createPlugin).
    """
    make = require("onnx.helper", "building an engine with plugins").make_attribute
    del node.attribute[:]
    node.attribute.append(make(ATTRIBUTE, [offer(kernel)]))
    # Up to 10.9 the parser looks for plugins in the namespace "" unless it is told another.
    node.attribute.append(make("plugin_namespace", NAMESPACE))
    if road.road == "plugin-aot":
        node.attribute.append(make("aot", 1))


def cast_answer(graph: onnx.GraphProto, node: onnx.NodeProto, launch: Launch) -> None:
    """Put a cast behind a plugin that answers in another type than its operator."""
    if launch.output.dtype == launch.cast_to:
        return
    helper = require("onnx.helper", "building an engine with plugins")
    to = helper.np_dtype_to_tensor_dtype(np.dtype(launch.cast_to))
    answer, node.output[0] = node.output[0], f"{node.output[0]}.{launch.output.dtype}"
    cast = helper.make_node("Cast", [node.output[0]], [answer], f"{node.name}.cast", to=to)
    place = list(graph.node).index(node) + 1
    graph.node.insert(place, cast)


@contextlib.contextmanager
def advised(choice: Choice) -> Iterator[None]:
    """Say of a failure that plugins may have a part in how to do without them."""
    try:
        yield
    except BuildError as error:
        if not choice.kernels:
            raise
        raise BuildError(
            f"{error} This was with plugins; with --plugins never, operators are computed by their definitions."
        ) from error


def taken(library: Any, network: Any, model: Model, choice: Choice, settings: Settings) -> dict[str, OpRoad]:
    """The road that every operator took, as the parsed network shows it.

    Raises:
        BuildError: if `settings.plugins` is "require" and one that was to be a plugin is none.
    """
    plugins = plugin_layers(library, network) if choice.kernels else []
    roads = {
        node: road if road.road == "function" or is_among(node, plugins) else OpRoad(road.op, "function")
        for node, road in choice.roads.items()
    }
    if settings.plugins == "require" and (lost := [node for node in roads if roads[node].road == "function"]):
        raise BuildError(
            f"TensorRT {library.__version__} parsed {model.path} without the plugin for {roads[lost[0]].op} (node "
            f"{lost[0]!r}), though it was registered. Build it with --plugins auto, or never."
        )
    return roads


def plugin_layers(library: Any, network: Any) -> list[tuple[str, str]]:
    """Name and metadata of every layer that is a plugin."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return [(layer.name, layer.metadata) for layer in layers if layer.type == library.LayerType.PLUGIN_V3]


def is_among(node: str, layers: list[tuple[str, str]]) -> bool:
    """Whether one of these layers was made from a node.

    >>> is_among("attend", [("attend_1", "[ONNX Layer: attend_1]"), ("(Unnamed) 7", "[ONNX Layer: attend]")])
    True
    >>> is_among("attend", [("attend_1", "[ONNX Layer: attend_1]")])
    False
    """
    source = re.compile(rf"\[ONNX Layer: (?:[^\]]* \| )?{re.escape(node)}(?: \(| \||\])")
    return any(node == name or source.search(metadata) for name, metadata in layers)
