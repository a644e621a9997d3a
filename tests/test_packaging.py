"""The wheel and the sdist hold the project, and install on every Python there is here."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist made from a copy of the project, and the wheel made from that sdist."""
    copy = tmp_path_factory.mktemp("project") / "roadseg"
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    if not any(tracked):
        pytest.skip("not a git checkout")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", out, copy], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_the_wheel_holds_every_package_and_the_shipped_weights(built):
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    for expected in (
        "roadseg/cli.py",
        "roadseg/runtime/spec.py",
        "roadseg/runtime/backends/onnxruntime.py",
        "roadseg/train/models/fastscnn.py",
        "roadseg/train/weights/fastscnn_camvid.safetensors",
        "roadseg/train/weights/fastscnn_scenes.safetensors",
        "roadseg/export/passes/__init__.py",
        "roadseg/py.typed",
        "roadseg/templates/report.css",
        "roadseg/templates/report.html.j2",
    ):
        assert expected in names
    assert not [name for name in names if name.startswith(("tests/", "train/", "runtime/"))]


def test_the_sdist_holds_the_licence(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        assert any(name.endswith("/LICENSE") for name in archive.getnames())


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_installs_and_its_command_runs(built, tmp_path, version):
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    bin_ = tmp_path / "venv" / "bin"
    subprocess.run([bin_ / "pip", "install", "-q", next(built.glob("*.whl"))], check=True, capture_output=True)
    code = "import roadseg.runtime as r; print(r.ModelSpec('tiny', 2, 4).size)"
    shown = subprocess.run([bin_ / "python", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert shown.stdout == "(2, 4)\n"
    told = subprocess.run(
        [bin_ / "roadseg", "doctor", "--json"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert told.returncode == 0, told.stderr


def find_python(version: str) -> str | None:
    """An interpreter of this version, on the path or among pyenv's."""
    candidates = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for candidate in filter(None, candidates):
        answer = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.startswith(f"Python {version}."):
            return str(candidate)
    return None
