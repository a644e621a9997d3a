"""Kill every command at random moments, run it again, and compare with an undisturbed run, byte for byte.

Run: python -m benchmarks.kill [--kills 20] [--seed 0] [--only NAME ...] --out results.json

Each command works in a folder of its own, on generated scenes and the shipped checkpoint. Every second kill
comes at a moment drawn from the second half of the command's run (the first half imports libraries), the others
up to 20 ms after a file appeared or changed in its folder; a command that writes nothing gets all of the first
kind. Leftovers stay for the next run to meet. Compared is every file the command makes and what it prints, but
for what holds measured times.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

TIMED_FILES = {"latency.json", "video.json", "report.html", "video", "report"}
"""Files with measured times, and the pipeline's records of the steps that write them."""
TIMED_VALUES = {"fps", "p50_ms", "p90_ms", "p99_ms"}
"""Values with measured times in what a command prints."""
AFTER_CHANGE_S = 0.02
"""Longest wait between a file's change and the kill that it triggers."""

RECIPE = """\
batch = 4
[augmentation]
crop = [96, 192]
"""

PIPELINE = """\
title = "Scenes"
latency_frames = 2
[network]
net = "fastscnn"
weights = "scenes"
size = "96x192"
[data]
calibration = "scenes:count=8"
evaluation = "scenes:count=4"
[calibration]
count = 8
[engines]
compute_capabilities = ["8.6"]
[budget]
fp16 = 100
int8 = 100
[video]
source = "scenes:frames=12,seed=1"
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """One run of `roadseg`."""

    name: str
    arguments: str
    """As typed, in a folder that holds what the commands before it made."""


NET = "--net fastscnn --size 96x192"
COMMANDS = (
    Command(
        "train",
        f"train {NET} --data scenes:count=8 --val-split= --epochs 4 --recipe recipe.toml --keep "
        "--out trained.safetensors",
    ),
    Command("import", "import --net fastscnn --from their.pth --size 96x192 --out imported.safetensors --json"),
    Command("export", f"export {NET} --weights scenes --out m.onnx --json"),
    Command("calibrate", "calibrate m.onnx --data scenes:count=16 --count 16 --out m.ranges --json"),
    Command("quantize fp16", "quantize m.onnx --precision fp16 --out m_fp16.onnx --json"),
    Command("quantize int8", "quantize m.onnx --precision int8 --ranges m.ranges --out m_int8.onnx --json"),
    Command("build", "build m_int8.onnx --flavour rtx --compute-capability 8.6 --out m.plan --json"),
    Command("evaluate", "evaluate m_int8.onnx --data scenes:count=16 --json"),
    Command("parity", "parity m.onnx m_int8.onnx --data scenes:count=16 --budget 100 --json"),
    Command("run", "run m_int8.onnx --source scenes:frames=24,seed=1 --out labelled.mp4 --json"),
    Command("inspect", "inspect m.plan --json"),
    Command("pipeline", "pipeline road.toml"),
)
"""In an order in which each finds its inputs."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What an undisturbed run leaves behind."""

    whole_s: float
    files: dict[str, str]
    """SHA-256 by path."""
    printed: Any
    """JSON from standard output, without measured times."""


def study(command: Command, inputs: Path, kills: int, dice: random.Random) -> dict[str, Any]:
    """Kill one command `kills` times in a copy of `inputs`, and compare."""
    undisturbed = run_undisturbed(command, inputs)
    writes = bool(undisturbed.files)
    with tempfile.TemporaryDirectory() as folder:
        place = fill(Path(folder) / "work", inputs)
        found: list[dict[str, Any]] = []
        while len(found) < kills:
            on_change = writes and len(found) % 2 == 1
            after_s = dice.uniform(0, AFTER_CHANGE_S) if on_change else undisturbed.whole_s * dice.uniform(0.5, 1)
            if kill(command, place, after_s, on_change):
                found.append(
                    {"on_change": on_change, "after_s": round(after_s, 3)} | judge(place, inputs, undisturbed)
                )
            else:  # it got through: begin anew, so that every kill meets work
                place = fill(place, inputs)
        done = run(command, place)
        after = made(place, inputs)
    return {
        "command": f"roadseg {command.arguments}",
        "whole_s": round(undisturbed.whole_s, 2),
        "kills": found,
        "finished": done.returncode == 0,
        "files": undisturbed.files,
        "different": sorted(n for n in undisturbed.files if after.get(n) != undisturbed.files[n]),
        "left_over": sorted(after.keys() - undisturbed.files.keys()),
        "same_output": printed(done.stdout) == undisturbed.printed,
    }


def run_undisturbed(command: Command, inputs: Path) -> Result:
    """Run a command in a copy of `inputs`; what it made is then among the inputs of those after it."""
    with tempfile.TemporaryDirectory() as folder:
        place = fill(Path(folder) / "work", inputs)
        begun = time.monotonic()
        done = run(command, place)
        whole_s = time.monotonic() - begun
        assert done.returncode == 0, done.stderr
        return Result(whole_s, made(place, inputs), printed(done.stdout))


def kill(command: Command, place: Path, after_s: float, on_change: bool) -> bool:
    """Run a command and kill it and all its processes; False if it ended before that."""
    before = snapshot(place)
    process = subprocess.Popen(
        words(command), cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while on_change and process.poll() is None and snapshot(place) == before:
        time.sleep(0.001)
    try:
        process.wait(after_s)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def judge(place: Path, inputs: Path, undisturbed: Result) -> dict[str, Any]:
    """What a kill left: finished files, those that differ from an undisturbed run's, and others."""
    files = made(place, inputs)
    known = files.keys() & undisturbed.files.keys()
    return {
        "finished": sorted(n for n in known if files[n] == undisturbed.files[n]),
        "corrupt": sorted(n for n in known if files[n] != undisturbed.files[n]),
        "others": len(files.keys() - known),
    }


def words(command: Command) -> list[str]:
    """A command as a process."""
    return [sys.executable, "-m", "roadseg", *command.arguments.split()]


def run(command: Command, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(words(command), cwd=place, capture_output=True, text=True, check=False)


def snapshot(place: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file."""
    found = {}
    for path in place.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # gone between the two
            continue
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def made(place: Path, inputs: Path) -> dict[str, str]:
    """SHA-256 of every file that is not among the inputs, but for those with measured times."""
    files = (path for path in sorted(place.rglob("*")) if path.is_file() and path.stem not in TIMED_FILES)
    names = {str(path.relative_to(place)): path for path in files if path.name not in TIMED_FILES}
    return {
        n: hashlib.sha256(path.read_bytes()).hexdigest() for n, path in names.items() if not (inputs / n).exists()
    }


def printed(text: str) -> Any:
    """What a command printed as JSON, without measured times."""
    values = json.loads(text) if text.strip() else None
    return {k: v for k, v in values.items() if k not in TIMED_VALUES} if isinstance(values, dict) else values


def fill(place: Path, inputs: Path) -> Path:
    """A fresh copy of `inputs` at `place`."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(inputs, place)
    return place


def prepare(folder: Path) -> Path:
    """Write what no command makes."""
    from roadseg.train import build

    torch.manual_seed(0)
    torch.save(build("fastscnn", 19, aux=True).state_dict(), folder / "their.pth")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "road.toml").write_text(PIPELINE)
    return folder


def main() -> int:
    """Run the study; returns 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[command.name for command in COMMANDS])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    conditions = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = prepare(Path(folder))
        for command in COMMANDS:
            if command.name in arguments.only:
                dice = random.Random(f"{arguments.seed} {command.name}")
                results[command.name] = study(command, inputs, arguments.kills, dice)
                print(summary(command.name, results[command.name]), flush=True)
                report = {"seed": arguments.seed, "conditions": conditions, "commands": results}
                arguments.out.write_text(json.dumps(report, indent=1) + "\n")
            assert run(command, inputs).returncode == 0
    return int(not all(passed(result) for result in results.values()))


def passed(result: dict[str, Any]) -> bool:
    """Whether a command came through: the same files, the same output, nothing corrupt, nothing left over."""
    corrupt = any(kill["corrupt"] for kill in result["kills"])
    return (
        result["finished"]
        and result["same_output"]
        and not (corrupt or result["different"] or result["left_over"])
    )


def summary(name: str, result: dict[str, Any]) -> str:
    """One line."""
    met = sum(1 for kill in result["kills"] if kill["others"] or kill["finished"])
    verdict = "passed" if passed(result) else "FAILED"
    compared = len(result["files"])
    return f"{name}: {len(result['kills'])} kills, {met} with files on disk, {compared} compared: {verdict}"


if __name__ == "__main__":
    sys.exit(main())
