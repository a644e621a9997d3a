"""The layout tells the story: what may import what, what is installed, what stays out of the vehicle."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from roadseg.runtime.optional import EXTRAS

ROOT = Path(__file__).parents[1]
STEPS = ("train", "export", "calib", "engines", "runtime")
HEAVY = ("torch", "onnx", "onnxruntime", "cv2", "av", "tensorrt", "tensorrt_rtx", "pycuda")
LENT = {"train": "roadseg.export.ops"}
"""The one package that a step may import beside itself and the runtime; why is told in docs/decisions.md."""
DISTRIBUTIONS = {"cv2": "opencv-python"}
"""Where a module is not called like what installs it."""


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def extras(setup):
    """Names of the distributions each extra installs."""
    return {
        extra: {line.partition(">")[0].strip() for line in text.split("\n") if line.strip()}
        for extra, text in setup["options.extras_require"].items()
    }


@pytest.fixture
def modules_after(tmp_path):
    """Tell what is in `sys.modules` of a fresh Python after a statement."""

    def tell(statement):
        code = f"{statement}\nimport sys\nprint(*sys.modules)"
        # Away from the checkout, whose folder roadseg/ would hide an installed roadseg.
        shown = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return set(shown.stdout.split())

    return tell


def test_importing_the_runtime_needs_no_heavy_library(modules_after):
    assert not modules_after("import roadseg.runtime").intersection(HEAVY)


def test_reading_a_data_set_needs_no_torch(modules_after):
    loaded = modules_after("import roadseg.train.data")
    assert "roadseg.train.data.camvid" in loaded
    assert "torch" not in loaded


def test_calibrating_needs_no_torch(modules_after):
    loaded = modules_after("from roadseg.calib import calibrate, quantize, search")
    assert "roadseg.calib.placement" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize("module", ["roadseg.train.models", "roadseg.export.ops"])
def test_networks_and_their_operators_need_no_exporter(modules_after, module):
    loaded = modules_after(f"import {module}")
    assert "roadseg.export.ops.op" in loaded
    assert not {"onnx", "onnxscript", "onnx_ir", "onnxruntime", "roadseg.export.model"} & loaded


def test_setup_lists_exactly_the_packages_there_are(setup):
    listed = setup["options"]["packages"].split()
    front_doors = [door for step in STEPS for door in (ROOT / step).rglob("__init__.py")]
    found = ["roadseg", *(".".join(["roadseg", *door.parent.relative_to(ROOT).parts]) for door in front_doors)]
    assert sorted(listed) == sorted(found)
    assert len(set(listed)) == len(listed)


def test_every_step_is_a_folder_of_its_own(setup):
    lines = setup["options"]["package_dir"].strip().splitlines()
    folders = dict(line.replace(" ", "").split("=") for line in lines)
    assert folders == {"roadseg": "roadseg"} | {f"roadseg.{step}": step for step in STEPS}


def test_the_extras_are_those_promised(extras):
    assert set(extras) == {"export", "train", "quantize", "tensorrt", "rtx", "kernels", "video", "report", "dev"}


def test_the_base_is_small(setup):
    names = {line.partition(">")[0].strip() for line in setup["options"]["install_requires"].strip().splitlines()}
    assert names == {"msgspec", "numpy", "rich", "tomli", "typer"}


@pytest.mark.parametrize("module", EXTRAS)
def test_the_extra_named_for_a_module_installs_it(module, extras):
    assert DISTRIBUTIONS.get(module, module) in extras[EXTRAS[module]]


def sources():
    return [p for folder in ("roadseg", *STEPS) for p in sorted((ROOT / folder).rglob("*.py"))]


def imports_of(path):
    """Full dotted names a file imports, relative ones resolved."""
    parts = path.relative_to(ROOT).parts
    package = parts[:-1] if parts[0] == "roadseg" else ("roadseg", *parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            # `from roadseg import export` imports a step as well as `from roadseg.export import x` does.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imported_from_outside(folder, *packages):
    """By file of a folder: what it imports of roadseg that is in none of these packages."""
    return {
        str(path.relative_to(ROOT)): others
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (others := [n for n in imports_of(path) if within(n, ["roadseg"]) and not within(n, packages)])
    }


def within(name, packages):
    """Whether a dotted name is that of one of these packages, or of something in it."""
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("step", STEPS)
def test_every_arrow_points_at_the_runtime(step):
    lent = [LENT[step]] if step in LENT else []
    assert imported_from_outside(step, f"roadseg.{step}", "roadseg.runtime", *lent) == {}


def test_what_networks_may_import_of_the_exporter_imports_nothing_else_of_it():
    assert imported_from_outside("export/ops", "roadseg.export.ops", "roadseg.runtime") == {}


def test_imports_are_read_as_python_reads_them(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "export" / "passes").mkdir(parents=True)
    path = tmp_path / "export" / "passes" / "one.py"
    path.write_text(
        "from ..trace import t\nfrom ...calib import c\nfrom roadseg import train\nimport onnx.helper\n"
    )
    names = ["roadseg.export.trace.t", "roadseg.calib.c", "roadseg.train", "onnx.helper"]
    assert list(imports_of(path)) == names
    assert imported_from_outside("export", "roadseg.export") == {"export/passes/one.py": names[1:3]}
    assert imported_from_outside("export", "roadseg.export.trac", "roadseg.calib", "roadseg.train") == {
        "export/passes/one.py": names[:1]
    }


def required(path):
    """Modules that a file asks `require` for by a literal name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require" and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield name.value.partition(".")[0]


def test_every_module_asked_for_has_an_extra():
    asked = {module for path in sources() for module in required(path)}
    assert {"cv2", "onnx", "onnxruntime"} <= asked <= set(EXTRAS)


def test_the_runtime_keeps_heavy_libraries_inside_functions():
    # backends/torch.py is imported only by those who have torch.
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        if path != ROOT / "runtime" / "backends" / "torch.py":
            assert not {name.partition(".")[0] for name in top_level_imports(path)}.intersection(HEAVY), path


def top_level_imports(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
