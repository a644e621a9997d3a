"""Takes our plugins through their lives inside the bindings of one TensorRT, and prints what was seen as JSON.

Run as a script: python use_plugins.py v3|aot

Real are the bindings' classes, TensorRT's Python package of plugins, and all that both do with ours. Stand-ins are
what only TensorRT's own library can make, each named so.
"""

import json
import os
import sys

import numpy as np
import tensorrt_bindings as library

from roadseg.runtime import RoadsegError, sha256_bytes
from roadseg.runtime.plugins import Kernel, Launch, TensorType, compress, offer, v3

PTX = ".version 8.5\n.target sm_87\n// " + "x" * 300
LAUNCH = Launch(
    op="Attend",
    inputs=(TensorType("float16", (1, 8, 4, 6)), TensorType("float16", (1, 8, 4, 6))),
    output=TensorType("float32", (1, 16, 24)),
    cast_to="float32",
    entry="attend_kernel",
    ptx_sha256=sha256_bytes(PTX.encode()),
    grid=(3, 2, 1),
    threads=256,
    shared_bytes=4096,
    integers=(24, 8, 16),
)
KERNEL = Kernel(LAUNCH, compress(PTX))
BASES = ("IPluginV3", "IPluginV3OneCore", "IPluginV3OneBuild", "IPluginV3OneRuntime")


class RegistryStandIn:
    """TensorRT's registry, which is in its library: holds creators by name, version and namespace."""

    def __init__(self):
        self.creators = {}

    def register_creator(self, creator, namespace):
        key = (creator.name, creator.plugin_version, namespace)
        if key in self.creators:
            return False
        self.creators[key] = creator
        return True

    def get_creator(self, name, version, namespace):
        return self.creators.get((name, version, namespace))


class NumberStandIn:
    """A dimension's expression: one number."""

    def __init__(self, value):
        self.value = value


class BuilderStandIn:
    """What TensorRT makes expressions with."""

    constant = staticmethod(NumberStandIn)


class ShapeStandIn(list):
    """`DimsExprs`, whose elements only TensorRT can make."""

    def __init__(self, content):
        super().__init__([None] * content if isinstance(content, int) else content)


class TensorStandIn:
    """`DynamicPluginTensorDesc`, with which the bindings of 10.3 crash."""


def tensor(kind, dtype=None):
    """A tensor as TensorRT describes it to a plugin."""
    desc = library.PluginTensorDesc()
    desc.type = getattr(library.DataType, dtype or {"float16": "HALF", "float32": "FLOAT"}[kind.dtype])
    desc.format = library.TensorFormat.LINEAR
    desc.dims = library.Dims(kind.shape)
    quick = hasattr(library, "QuickPluginCreationRequest")
    described = library.DynamicPluginTensorDesc() if quick else TensorStandIn()
    described.desc = desc
    return described


registry = RegistryStandIn()
owned = []
"""Plugins: TensorRT owns them in real life, and the bindings of 10.3 crash when Python frees one."""
library.get_plugin_registry = lambda: registry
library.DimsExprs = ShapeStandIn
tensors = [tensor(kind) for kind in (*LAUNCH.inputs, LAUNCH.output)]
types = [described.desc.type for described in tensors]


def numbers(shapes):
    """Shapes as lists of numbers."""
    return [[dimension.value for dimension in shape] for shape in shapes]


def message(function, *arguments):
    """What a refusal says; None where there is none."""
    try:
        function(*arguments)
    except RoadsegError as error:
        return str(error)


def live_v3():
    """From registration to a launch, by way of the fields in a plan."""
    v3.provide(library, ["Attend"])
    v3.provide(library, ["Attend"])  # once more is nothing new
    creator = registry.get_creator("Attend", "1", "roadseg")
    field = library.PluginField("kernel", np.array([offer(KERNEL)], np.int32), library.PluginFieldType.INT32)
    fields = library.PluginFieldCollection([field])
    plugin = creator.create_plugin("node", fields, library.TensorRTPhase.BUILD)
    kept = plugin.get_fields_to_serialize()
    opened = creator.create_plugin("node", kept, library.TensorRTPhase.RUNTIME)
    clone = plugin.clone()
    launched = []
    v3.load_kernel = lambda *code: LoadedStandIn(code, launched)
    attached = opened.attach_to_context(None)
    attached.on_shape_change([described.desc for described in tensors[:2]], [tensors[2].desc])
    attached.enqueue([], [], [0x1000, 0x2000], [0x3000], 0, 77)
    wide, packed = tensor(LAUNCH.inputs[0], "FLOAT"), tensor(LAUNCH.inputs[0])
    packed.desc.format = library.TensorFormat.CHW4
    narrow = tensor(TensorType("float16", (1, 8, 4, 5)))
    capabilities = library.PluginCapabilityType.__members__.values()
    owned.extend([plugin, opened, clone, attached])
    return {
        "creators": sorted(map(list, registry.creators)),
        "declared": [[field.name, field.type.name] for field in creator.field_names],
        "is": [isinstance(plugin, getattr(library, name)) for name in BASES],
        "identity": [plugin.plugin_name, plugin.plugin_version, plugin.plugin_namespace, plugin.num_outputs],
        "capable": [plugin.get_capability_interface(kind) is plugin for kind in capabilities],
        "types": [kind.name for kind in plugin.get_output_data_types(types[:2])],
        "shapes": numbers(plugin.get_output_shapes([], [], BuilderStandIn)),
        "takes": [plugin.supports_format_combination(i, tensors, 2) for i in range(3)],
        "takes others": [plugin.supports_format_combination(0, [x, *tensors[1:]], 2) for x in (wide, packed)],
        "kept": [[field.name, field.type.name] for field in kept],
        "the same": [opened.kernel == KERNEL, clone.kernel == KERNEL, attached.kernel == KERNEL],
        "launched": launched,
        "wrong type": message(plugin.get_output_data_types, [types[2], types[1]]),
        "wrong shape": message(plugin.on_shape_change, [tensors[0].desc, narrow.desc], []),
    }


class LoadedStandIn:
    """A kernel on a GPU, and what it is launched with."""

    def __init__(self, code, launched):
        self.code = code
        self.launched = launched

    def launch(self, grid, threads, arguments, stream):
        given = [[type(argument).__name__, argument.value] for argument in arguments]
        self.launched.append([self.code == (PTX, "attend_kernel", 4096), grid, threads, given, stream])


class LaunchStandIn:
    """The launch parameters that TensorRT reads, and the setter of integers."""


class IntegersStandIn(dict):
    """What TensorRT reads the kernel's integers from."""

    nbSymExprs = 0  # noqa: N815


def live_aot():
    """From registration to the code and the launch that go into a plan."""
    sys.modules["tensorrt"] = library
    import tensorrt_bindings.plugin as plugins

    sys.modules["tensorrt.plugin"] = plugins
    from tensorrt_bindings.plugin import _tensor

    from roadseg.engines import aot

    aot.provide(library, {"Attend": 2})
    aot.provide(library, {"Attend": 2})
    creator = registry.get_creator("Attend", "1", "roadseg")
    field = library.PluginField("kernel", np.array([offer(KERNEL)], np.int32), library.PluginFieldType.INT32)
    fields = library.PluginFieldCollection([field])
    request = library.QuickPluginCreationRequest.STRICT_AOT
    plugin = creator.create_plugin("Attend", "roadseg", fields, library.TensorRTPhase.BUILD, request)
    data_types = plugin.get_output_data_types(types[:2], [4, 4])
    lengths = [[NumberStandIn(length) for length in kind.shape] for kind in LAUNCH.inputs]
    shapes = plugin.get_output_shapes(lengths, [], BuilderStandIn)
    _tensor.SymExprImpl = lambda number: [type(number).__name__, number._expr.value]
    plugin.set_tactic(0)
    launch, integers = LaunchStandIn(), IntegersStandIn()
    plugin.get_launch_params([], tensors, 2, launch, integers, BuilderStandIn)
    name, code = plugin.get_kernel([described.desc for described in tensors[:2]], [tensors[2].desc])
    return {
        "creators": sorted(map(list, registry.creators)),
        "declared": [[field.name, field.type.name] for field in creator.field_names],
        "outputs": plugin.num_outputs,
        "types": [kind.name for kind in data_types],
        "shapes": numbers(shapes),
        "launch": {name: value[1] for name, value in vars(launch).items()},
        "integers": [integers.nbSymExprs, *integers.values()],
        "code": [name, code == PTX.encode()],
        "wrong type": message(plugin.get_output_data_types, [types[2], types[1]], [4, 4]),
    }


print(json.dumps({"v3": live_v3, "aot": live_aot}[sys.argv[1]]()), flush=True)  # noqa: T201
os._exit(0)  # before Python frees anything
