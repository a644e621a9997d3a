import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from roadseg.engines import Settings, build, roads, wanted_kernels
from roadseg.engines import tensorrt as tensorrt_builder
from roadseg.engines.model import read_model
from roadseg.runtime import ArtifactError, BuildError, UsageError, sha256_bytes, sha256_file
from roadseg.runtime.cuda import Gpu
from roadseg.runtime.onnxfile import serialise
from roadseg.runtime.plan import OpRoad, read_plan
from roadseg.runtime.plugins import Kernel, Launch, Package, TensorType, compress, offered, write_package

TWICE = '<domain: "roadseg", opset_import: ["": 20]> Twice (x) => (y) { y = Add (x, x) }'
SHIFT = '<domain: "roadseg", opset_import: ["": 20]> Shift <by: float> (x) => (y) {{ {} y = Sub (x, c) }}'.format(
    "c = Constant <value_float: float = @by> ()"
)
IMAGES = TensorType("float32", (1, 3, 32, 64))


@pytest.fixture
def model(graph, save):
    """Reads a model whose images go through Twice, Shift by 100 and Twice again before they are compared."""

    def read(calls=(("Twice", "first"), ("Shift", "shift"), ("Twice", "second"))):
        x = graph.add("Cast", ["frames"], "pixels", to=onnx.TensorProto.FLOAT)
        x = graph.add("Transpose", [x], "images", perm=[0, 3, 1, 2])
        for op, name in calls:
            x = graph.add(op, [x], f"{name}_out", domain="roadseg", **({"by": 100.0} if op == "Shift" else {}))
            graph.nodes[-1].name = name
        x = graph.add("ArgMax", [x], "classes", axis=1, keepdims=0)
        graph.add("Cast", [x], "labels", to=onnx.TensorProto.UINT8)
        made = graph.model()
        made.opset_import.append(onnx.helper.make_opsetid("roadseg", 1))
        made.functions.extend(map(onnx.parser.parse_function, (TWICE, SHIFT)))
        return read_model(save(made))

    return read


def kernel(op, kind=IMAGES, cast_to="float32", shared_bytes=1024):
    """A kernel for a call; its code is never run here."""
    ptx = f"// {op} of {kind}"
    launch = Launch(
        op=op,
        inputs=(kind,),
        output=kind,
        cast_to=cast_to,
        entry=op.lower(),
        ptx_sha256=sha256_bytes(ptx.encode()),
        grid=(8, 1, 1),
        threads=128,
        shared_bytes=shared_bytes,
        integers=(24,),
    )
    return Kernel(launch, compress(ptx))


def pack(model, kernels, left=None, gpu="8.7"):
    """A package of kernels beside a model."""
    path = model.path.with_suffix(".kernels")
    package = Package.of([(node, gpu, kernel) for node, kernel in kernels.items()], left or {})
    write_package(path, package, model.spec, model.sha256, "3.9.0")
    return path


def all_kernels():
    return {"first": kernel("Twice"), "shift": kernel("Shift"), "second": kernel("Twice")}


@pytest.fixture
def thor(monkeypatch):
    """TensorRT 10.13 with all that plugins need of it."""
    monkeypatch.setattr(roads, "library_obstacle", lambda library: "")
    return SimpleNamespace(__version__="10.13.3.9")


@pytest.mark.parametrize(
    ("version", "road"),
    [
        ("8.5.2.2", None),  # JetPack 5.1
        ("8.6.2", None),  # JetPack 6.0
        ("10.0.1", "plugin-v3"),
        ("10.3.0", "plugin-v3"),  # JetPack 6.1 and 6.2
        ("10.8.0.43", "plugin-v3"),
        ("10.9.0.34", "plugin-aot"),
        ("10.13.3.9", "plugin-aot"),  # JetPack 7.0 and 7.1
        ("10.16.2.10", "plugin-aot"),  # JetPack 7.2
        ("11.4.0.106", "plugin-aot"),
    ],
)
def test_the_kind_of_plugin_follows_the_version(version, road):
    assert roads.plugin_road(version) == road


def test_with_kernels_for_the_gpu_every_operator_becomes_a_plugin(model, thor):
    model = model()
    pack(model, all_kernels())
    choice = roads.choose(model, thor, "8.7", Settings())
    assert choice.kernels == all_kernels()
    assert choice.roads == {
        "first": OpRoad("Twice", "plugin-aot"),
        "shift": OpRoad("Shift", "plugin-aot"),
        "second": OpRoad("Twice", "plugin-aot"),
    }


def test_without_kernels_every_operator_is_computed_by_its_definition(model, thor, caplog):
    model = model()
    with caplog.at_level("INFO"):
        choice = roads.choose(model, thor, "8.7", Settings())
    assert set(choice.roads.values()) == {OpRoad("Twice", "function"), OpRoad("Shift", "function")}
    assert choice.kernels == {}
    package = model.path.with_suffix(".kernels")
    assert caplog.messages == [
        "by its definition: Twice (node 'first'), Shift (node 'shift'), Twice (node 'second'): there is no "
        f"{package}; make it with: roadseg kernels {model.path} --compute-capability 8.7 --out {package} "
        "(which needs: pip install 'roadseg[export,kernels]')."
    ]


def refusal(model, library, settings=Settings(plugins="require")):  # noqa: B008
    with pytest.raises(BuildError) as error:
        roads.choose(model, library, "8.7", settings)
    return str(error.value)


def test_plugins_that_are_required_without_kernels_are_refused_with_the_command_to_run(model, thor):
    model = model([("Twice", "first")])
    package = model.path.with_suffix(".kernels")
    how = f"roadseg kernels {model.path} --compute-capability 8.7 --out {package}"
    assert refusal(model, thor) == (
        f"{model.path} cannot be built with plugins for all its custom operators. Twice (node 'first'): there is "
        f"no {package}; make it with: {how} (which needs: pip install 'roadseg[export,kernels]'). Or build it "
        "with --plugins auto, which computes these operators by their definitions."
    )


def test_plugins_that_are_required_for_another_gpu_than_was_compiled_for_are_refused(model, thor):
    model = model()
    path = pack(model, all_kernels(), gpu="8.6")
    assert f"{path} holds no kernel for compute capability 8.7; make it with: roadseg kernels" in refusal(
        model, thor
    )


def test_plugins_that_are_required_of_tensorrt_8_are_refused(model):
    model = model()
    pack(model, all_kernels())
    assert (
        "Twice (node 'second'): TensorRT 8.6.2 takes no plugins that are written in Python; 10.0 and later do."
        in (refusal(model, SimpleNamespace(__version__="8.6.2")))
    )


def test_plugins_that_are_required_of_a_tensorrt_without_its_python_package_are_refused(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", None)
    model = model()
    pack(model, all_kernels())
    message = refusal(model, SimpleNamespace(__version__="10.13.3.9"))
    assert "needs tensorrt.plugin, which cannot be imported here" in message
    assert "pip install 'roadseg[tensorrt]'" in message


def test_what_a_package_left_out_is_said_in_its_words(model, thor):
    model = model([("Twice", "first")])
    pack(model, {}, left={"first": "the shape of x is open; export the model with a fixed batch"})
    assert "Twice (node 'first'): the shape of x is open; export the model with a fixed batch." in refusal(
        model, thor
    )


@pytest.mark.parametrize(
    ("limited", "why"),
    [
        (kernel("Twice", TensorType("uint8", (1, 4))), "TensorRT gives plugins no uint8 tensors."),
        (kernel("Twice", shared_bytes=49153), "needs 49153 bytes of shared memory, a plugin has 49152."),
    ],
)
def test_calls_of_an_operator_go_the_same_way_as_the_one_that_can_be_no_plugin(model, thor, limited, why):
    model = model()
    pack(model, all_kernels() | {"second": limited})
    assert f"Twice (node 'second'): {why}" in refusal(model, thor).replace("its kernel ", "")
    choice = roads.choose(model, thor, "8.7", Settings())
    assert {node: road.road for node, road in choice.roads.items()} == {
        "first": "function",
        "shift": "plugin-aot",
        "second": "function",
    }
    assert list(choice.kernels) == ["shift"]


def test_kernels_are_left_aside_where_plugins_are_never_wanted(model, thor):
    model = model()
    pack(model, all_kernels())
    choice = roads.choose(model, thor, "8.7", Settings(plugins="never"))
    assert {road.road for road in choice.roads.values()} == {"function"}


def test_kernels_of_another_model_are_refused(model, thor):
    model = model()
    pack(dataclasses.replace(model, sha256="0" * 64), all_kernels())
    with pytest.raises(ArtifactError, match="holds the kernels of another model"):
        roads.choose(model, thor, "8.7", Settings())


def test_kernels_may_stand_elsewhere_but_must_be_there(model, thor, tmp_path):
    model = model()
    elsewhere = pack(model, all_kernels()).rename(tmp_path / "elsewhere.kernels")
    model.path.with_suffix(".kernels.json").rename(tmp_path / "elsewhere.kernels.json")
    assert roads.choose(model, thor, "8.7", Settings(kernels=elsewhere)).kernels == all_kernels()
    with pytest.raises(ArtifactError, match=r"nowhere\.kernels cannot be read"):
        roads.choose(model, thor, "8.7", Settings(kernels=tmp_path / "nowhere.kernels"))


def attributes(node):
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


@pytest.mark.parametrize(
    ("version", "aot"), [("10.3.0", {}), ("10.13.3.9", {"aot": 1}), ("11.4.0.106", {"aot": 1})]
)
def test_a_plugin_is_parsed_without_function_and_with_nothing_but_the_attributes_that_find_it(
    model, thor, version, aot
):
    model = model()
    pack(model, all_kernels() | {"first": kernel("Twice", shared_bytes=50_000)})
    choice = roads.choose(model, SimpleNamespace(__version__=version), "8.7", Settings())
    prepared = roads.prepare(model, choice)
    proto = onnx.load_from_string(prepared.data)
    assert [node.op_type for node in proto.graph.node] == [
        *("Cast", "Transpose", "Add", "Shift", "Add", "ArgMax", "Cast"),
    ]
    assert not proto.functions
    (shift,) = (node for node in proto.graph.node if node.op_type == "Shift")
    given = attributes(shift)
    assert offered(given.pop("kernel")[0]) == kernel("Shift")
    assert given == {"plugin_namespace": b"roadseg"} | aot
    assert (prepared.graph, prepared.sha256, prepared.path) == (proto.graph, model.sha256, model.path)


def test_a_plugin_that_answers_in_another_type_is_followed_by_a_cast(model, thor):
    model = model([("Twice", "first")])
    pack(model, {"first": kernel("Twice", TensorType("float16", IMAGES.shape), cast_to="uint8")})
    prepared = roads.prepare(model, roads.choose(model, thor, "8.7", Settings()))
    first, cast, argmax = prepared.graph.node[2:5]
    assert (first.op_type, cast.op_type, argmax.op_type) == ("Twice", "Cast", "ArgMax")
    assert attributes(cast) == {"to": onnx.TensorProto.UINT8}
    assert list(cast.input) == list(first.output) == ["first_out.float16"]
    assert list(cast.output) == list(argmax.input) == ["first_out"]


def test_definitions_answer_as_the_operators_they_stand_for(model, spec):
    model = model()
    prepared = roads.prepare(model, roads.all_functions(model))
    assert {node.domain for node in prepared.graph.node} == {""}
    frames = np.random.default_rng(0).integers(0, 256, (1, *spec.size, 3), np.uint8)
    answers = [
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"frames": frames})[0]
        for data in (model.data, prepared.data)
    ]
    np.testing.assert_array_equal(*answers)


def test_a_model_without_custom_operators_is_parsed_as_it_is(save_segmenter, thor):
    model = read_model(save_segmenter())
    assert roads.prepare(model, roads.choose(model, thor, "8.7", Settings(plugins="require"))) is model


class LayerTypes:
    PLUGIN_V3 = "plugin"


def parsed(*layers):
    """A network with layers of these types, names and metadata."""
    made = [SimpleNamespace(type=kind, name=name, metadata=metadata) for kind, name, metadata in layers]
    return SimpleNamespace(num_layers=len(made), get_layer=made.__getitem__)


def test_the_road_that_was_taken_is_read_off_the_parsed_network(model, thor):
    model = model()
    pack(model, all_kernels())
    choice = roads.choose(model, thor, "8.7", Settings())
    library = SimpleNamespace(__version__="10.13.3.9", LayerType=LayerTypes)
    network = parsed(
        ("other", "first", "[ONNX Layer: first]"),
        ("plugin", "(Unnamed Layer* 3)", "[ONNX Layer: shift]"),
        ("plugin", "second", ""),
    )
    taken = roads.taken(library, network, model, choice, Settings())
    assert {node: road.road for node, road in taken.items()} == {
        "first": "function",
        "shift": "plugin-aot",
        "second": "plugin-aot",
    }
    with pytest.raises(BuildError, match=r"10\.13\.3\.9 parsed .* without the plugin for Twice \(node 'first'\)"):
        roads.taken(library, network, model, choice, Settings(plugins="require"))


@pytest.fixture
def rtx_as_tensorrt(monkeypatch):
    """TensorRT 11, whose parser and builder are TensorRT-RTX's here, on a machine that has a GPU."""
    library = pytest.importorskip("tensorrt_rtx")
    gpu = Gpu("NVIDIA RTX A2000", "8.6", "12.6")
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.setattr(library, "__version__", "11.4.0.106")
    monkeypatch.setattr(tensorrt_builder, "find_gpu", lambda: gpu)
    monkeypatch.setattr(roads, "library_obstacle", lambda library: "")
    return library


def test_an_engine_of_definitions_is_built_and_says_which_road_was_taken(model, tmp_path, rtx_as_tensorrt):
    model = model()
    manifest = build(model.path, tmp_path / "m.plan", flavour="tensorrt")
    assert manifest.inputs == {"onnx": sha256_file(model.path)}
    assert read_plan(tmp_path / "m.plan")[1].roads == {
        "first": OpRoad("Twice", "function"),
        "shift": OpRoad("Shift", "function"),
        "second": OpRoad("Twice", "function"),
    }


def test_what_should_be_a_plugin_is_computed_as_nothing_else(model, tmp_path, rtx_as_tensorrt, monkeypatch):
    model = model()
    pack(model, all_kernels(), gpu="8.6")
    monkeypatch.setattr(roads, "provide", lambda library, model, choice: None)
    with pytest.raises(BuildError) as refusal:
        build(model.path, tmp_path / "m.plan", flavour="tensorrt")
    assert "op Twice (node 'first') is not supported." in str(refusal.value)
    assert str(refusal.value).endswith("with --plugins never, operators are computed by their definitions.")


def test_what_is_required_and_missing_stops_a_build_before_anything_is_parsed(
    model, tmp_path, rtx_as_tensorrt, monkeypatch
):
    def parse(*args):
        raise AssertionError("parsed")

    monkeypatch.setattr(tensorrt_builder, "Network", parse)
    with pytest.raises(BuildError, match="make it with: roadseg kernels"):
        build(model().path, tmp_path / "m.plan", flavour="tensorrt", settings=Settings(plugins="require"))
    assert not list(tmp_path.glob("*.plan*"))


def test_a_plan_with_plugins_is_bound_to_the_kernels_it_was_made_from(
    model, tmp_path, rtx_as_tensorrt, monkeypatch
):
    model = model()
    path = pack(model, all_kernels(), gpu="8.6")
    monkeypatch.setattr(roads, "provide", lambda library, model, choice: None)
    # No parser here takes plugins: it gets the definitions and says that they were plugins.
    prepare, plugins = roads.prepare, [(node, "") for node in all_kernels()]
    monkeypatch.setattr(roads, "prepare", lambda model, choice: prepare(model, roads.all_functions(model)))
    monkeypatch.setattr(roads, "plugin_layers", lambda library, network: plugins)
    manifest = build(model.path, tmp_path / "m.plan", flavour="tensorrt")
    assert manifest.inputs == {"onnx": model.sha256, "kernels": sha256_file(path)}
    assert {road["road"] for road in manifest.details["roads"].values()} == {"plugin-aot"}


def test_kernels_are_wanted_for_this_gpu_until_they_are_there(model, rtx_as_tensorrt):
    model = model()
    wanted = [wanted_kernels(model.path, "tensorrt", None, Settings())]
    wanted.append(wanted_kernels(model.path, "tensorrt", None, Settings(plugins="never")))
    wanted.append(wanted_kernels(model.path, "tensorrt", None, Settings(kernels=Path("mine.kernels"))))
    wanted.append(wanted_kernels(model.path, "rtx", None, Settings()))
    pack(model, all_kernels())
    wanted.append(wanted_kernels(model.path, "tensorrt", None, Settings()))
    assert wanted == ["8.6", None, None, None, None]


def test_no_kernels_are_wanted_for_a_model_without_custom_operators(save_segmenter, rtx_as_tensorrt):
    assert wanted_kernels(save_segmenter(), "tensorrt", None, Settings()) is None


def test_no_kernels_are_wanted_for_tensorrt_8(model, rtx_as_tensorrt, monkeypatch):
    monkeypatch.setattr(rtx_as_tensorrt, "__version__", "8.6.2")
    assert wanted_kernels(model().path, "tensorrt", None, Settings()) is None


def test_tensorrt_rtx_computes_definitions_and_says_so(model, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    build(model().path, tmp_path / "m.plan", flavour="rtx", compute_capability="8.6")
    assert {road.road for road in read_plan(tmp_path / "m.plan")[1].roads.values()} == {"function"}


def test_plugins_that_are_required_of_tensorrt_rtx_are_refused(model, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    settings = Settings(plugins="require")
    with pytest.raises(BuildError, match="TensorRT-RTX takes no plugins; build it with --flavour tensorrt"):
        build(model().path, tmp_path / "m.plan", flavour="rtx", settings=settings)


def test_kernels_for_tensorrt_rtx_are_refused(model, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    settings = Settings(kernels=tmp_path / "m.kernels")
    with pytest.raises(UsageError, match=r"takes no plugins, so .*m\.kernels would not be used"):
        build(model().path, tmp_path / "m.plan", flavour="rtx", settings=settings)


def test_the_model_on_disk_stays_as_it_was(model, thor):
    model = model()
    before = model.path.read_bytes()
    pack(model, all_kernels())
    roads.prepare(model, roads.choose(model, thor, "8.7", Settings()))
    assert model.path.read_bytes() == before
    assert serialise(onnx.load_from_string(model.data)) == before
