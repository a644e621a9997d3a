"""Files are complete and what they claim to be, or refused."""

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from roadseg.runtime import (
    ArtifactError,
    Manifest,
    ModelSpec,
    atomic_path,
    manifest_path,
    read_manifest,
    sha256_bytes,
    sha256_file,
    write_atomically,
    write_with_manifest,
)

SPEC = ModelSpec("tiny", height=2, width=4, classes=("road", "sky"))
MANIFEST = Manifest(
    "ranges", "", SPEC, {"onnx": "ab" * 32}, {"method": "minmax", "scale": 0.1}, {"roadseg": "0.1.0"}
)


@pytest.fixture
def ranges(tmp_path):
    write_with_manifest(tmp_path / "m.ranges", b"data", MANIFEST)
    return tmp_path / "m.ranges"


def edit(path, change):
    """Apply `change` to the decoded manifest of `path`, as one would in a text editor."""
    text = json.loads(manifest_path(path).read_text())
    change(text)
    manifest_path(path).write_text(json.dumps(text, indent=2) + "\n")


def run(code, path):
    """Start Python on `code` with roadseg's artifacts at hand."""
    command = [sys.executable, "-c", f"from roadseg.runtime.artifacts import *\n{code}", str(path)]
    # Away from the checkout, whose folder roadseg/ would hide an installed roadseg.
    return subprocess.Popen(command, cwd=path.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_manifest_comes_back_with_the_hash_of_its_file(ranges):
    read = read_manifest(ranges, "ranges")
    assert read.file_sha256 == hashlib.sha256(b"data").hexdigest()
    assert dataclasses.replace(read, file_sha256="", manifest_sha256="") == MANIFEST
    assert write_with_manifest(ranges, b"data", MANIFEST) == read


def test_the_same_inputs_give_the_same_bytes_whatever_their_order(ranges, tmp_path):
    turned = dataclasses.replace(MANIFEST, details={"scale": 0.1, "method": "minmax"})
    write_with_manifest(tmp_path / "other.ranges", b"data", turned)
    assert manifest_path(ranges).read_bytes() == manifest_path(tmp_path / "other.ranges").read_bytes()


def test_details_become_a_dataclass(ranges):
    @dataclasses.dataclass(frozen=True)
    class Details:
        method: str
        scale: float

    @dataclasses.dataclass(frozen=True)
    class OtherDetails:
        method: int

    manifest = read_manifest(ranges, "ranges")
    assert manifest.details_as(Details) == Details("minmax", 0.1)
    with pytest.raises(ArtifactError, match="not those of a ranges: Expected `int`, got `str`"):
        manifest.details_as(OtherDetails)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["details"].update(scale=0.2),
        lambda m: m["inputs"].update(onnx="cd" * 32),
        lambda m: m["spec"].update(channels="bgr"),
        lambda m: m["versions"].clear(),
        lambda m: m.update(manifest_sha256=""),
        lambda m: m.update(note="looks fine to me"),
        lambda m: m["spec"].update(gamma=2.2),
    ],
)
def test_an_edited_manifest_is_refused(ranges, change):
    edit(ranges, change)
    with pytest.raises(ArtifactError, match=r"m\.ranges\.json was edited after roadseg wrote it\. Make m\.ranges"):
        read_manifest(ranges, "ranges")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', "\xff", '{"schema": "new"}'])
def test_what_is_no_manifest_is_refused(ranges, text):
    manifest_path(ranges).write_text(text, "latin-1")
    with pytest.raises(ArtifactError, match=r"m\.ranges\.json is not a roadseg manifest"):
        read_manifest(ranges, "ranges")


def test_a_manifest_with_an_impossible_spec_is_refused_by_name(ranges):
    edit(ranges, lambda m: m["spec"].update(height=0))
    with pytest.raises(ArtifactError, match=r"m\.ranges\.json is not a roadseg manifest .*height and width"):
        read_manifest(ranges, "ranges")


def test_another_schema_is_named_even_if_its_fields_are_others(ranges):
    manifest_path(ranges).write_text('{"schema": 2, "what": "ranges"}')
    with pytest.raises(ArtifactError, match="has schema 2, this roadseg reads 1"):
        read_manifest(ranges, "ranges")


def test_another_kind_is_named(ranges):
    with pytest.raises(ArtifactError, match=r"m\.ranges is a ranges, not a plan"):
        read_manifest(ranges, "plan")


@pytest.mark.parametrize("data", [b"dat", b"", b"Data", b"data\n"])
def test_a_truncated_or_replaced_file_is_refused(ranges, data):
    ranges.write_bytes(data)
    with pytest.raises(ArtifactError, match="not the file its manifest describes"):
        read_manifest(ranges, "ranges")


def test_a_missing_file_or_manifest_is_named(ranges):
    manifest_path(ranges).unlink()
    with pytest.raises(ArtifactError, match=r"has no manifest \(m\.ranges\.json is missing\)"):
        read_manifest(ranges, "ranges")
    ranges.unlink()
    with pytest.raises(ArtifactError, match=r"m\.ranges cannot be read: No such file"):
        read_manifest(ranges, "ranges")


def test_a_file_without_its_new_manifest_is_refused(ranges):
    # As if the run had been killed between the two.
    write_atomically(ranges, b"newer data")
    with pytest.raises(ArtifactError, match="its making was interrupted"):
        read_manifest(ranges, "ranges")


def test_hashes_are_sha256(tmp_path):
    # FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_bytes(b"abc") == sha256_file(tmp_path / "abc") == digest


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"old")
    with contextlib.suppress(KeyError), atomic_path(tmp_path / "m.onnx") as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == b"old"


def test_the_temporary_file_keeps_the_suffix_and_the_old_file_stands_until_the_end(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"old")
    with atomic_path(tmp_path / "v.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        temporary.write_bytes(b"new")
        assert (tmp_path / "v.mp4").read_bytes() == b"old"
    assert (tmp_path / "v.mp4").read_bytes() == b"new"


def test_a_missing_folder_is_made_and_the_umask_holds(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a" / "b" / "m.onnx", b"data")
    finally:
        os.umask(old)
    assert (tmp_path / "a" / "b" / "m.onnx").stat().st_mode & 0o777 == 0o640


WRITE_HALF = """
import sys, time
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_writer_killed_in_the_middle_leaves_the_old_file_and_the_next_one_clears_up(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    writer = run(WRITE_HALF, path)
    assert writer.stdout.readline() == "half\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_writer_still_at_work_and_other_files_are_left_alone(tmp_path):
    neighbours = [".m.onnx", ".m.99999999-notes.onnx", ".n.99999999-0123abcd.onnx", "m.99999999-0123abcd.onnx"]
    for name in neighbours:
        (tmp_path / name).touch()
    with atomic_path(tmp_path / "m.onnx") as slow:
        slow.write_bytes(b"slow")
        write_atomically(tmp_path / "m.onnx", b"fast")
    assert (tmp_path / "m.onnx").read_bytes() == b"slow"
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", *neighbours}


WRITE_TOO_MUCH = """
import resource, signal, sys
# The kernel refuses to let a file grow past this, as it does on a full disk.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_atomically(Path(sys.argv[1]), bytes(1_000_000))
except ArtifactError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_leaves_the_old_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"old")
    told, _ = run(WRITE_TOO_MUCH, tmp_path / "m.onnx").communicate()
    assert told == f"{tmp_path / 'm.onnx'} cannot be written: File too large.\n"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == b"old"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "m.onnx", tmp_path / "folder", Path("/proc/m.onnx")):
        with pytest.raises(ArtifactError, match=f"^{path} cannot be written: "):
            write_atomically(path, b"data")


def write_forever(path, ready):
    for i in range(10**9):
        write_with_manifest(path, bytes([i % 251]) * 100_000, dataclasses.replace(MANIFEST, details={"i": i}))
        ready.set()


def test_a_writer_killed_at_any_moment_never_leaves_what_is_accepted_and_wrong(tmp_path):
    path = tmp_path / "m.ranges"
    fork = multiprocessing.get_context("fork")
    for attempt in range(20):
        ready = fork.Event()
        writer = fork.Process(target=write_forever, args=(path, ready))
        writer.start()
        ready.wait()
        time.sleep(0.001 * attempt)
        writer.kill()
        writer.join()
        data = path.read_bytes()
        assert data == data[:1] * 100_000
        with contextlib.suppress(ArtifactError):
            assert read_manifest(path, "ranges").details["i"] % 251 == data[0]
    write_with_manifest(path, b"data", MANIFEST)
    assert read_manifest(path, "ranges").details == MANIFEST.details
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.ranges", "m.ranges.json"]
