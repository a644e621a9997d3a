"""Kill every command at random moments, run it again, and compare with an undisturbed run, byte for byte.

Run: python -m benchmarks.kill [--kills 20] [--seed 0] [--only NAME ...] --out results.json

Each command works in a folder of its own, on generated scenes and the shipped checkpoint. Other files of the names
that it writes stand there already, from a run with other settings. To be killed it runs in a process forked off
this one, which has imported all libraries, so that every kill meets work; its whole process group gets SIGKILL.
Half of the moments are drawn from the length of a run, the others come up to 20 ms after a file first appeared or
changed in the folder; a command that writes nothing gets all of the first kind. What a kill leaves stays for the
next run to meet, but a run that is through, or was killed when all its files were done, makes the next one begin
anew. After a kill each artifact, with its manifest, is the older one, the finished one, or refused by
`roadseg inspect`. Every run that gets through must leave what an undisturbed one in a process of its own leaves,
and no file besides; the last one must print the same too. Left out of the comparison are measured times: the
contents of TIMED_FILES and the printed TIMED_VALUES.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, get_args

from roadseg import cli

LIBRARIES = ("av", "cv2", "onnxruntime", "onnxscript", "onnxsim", "tensorrt_rtx", "torch._dynamo", "torch.onnx")
"""What the commands import, besides roadseg's own."""
TIMED_FILES = {"latency.json", "video.json", "report.html"}
"""Files with measured times; the pipeline's records of its steps have the same names and hold their hashes."""
TIMED_VALUES = {"fps", "p50_ms", "p90_ms", "p99_ms"}
"""Values with measured times in what a command prints."""
POLL_S = 0.001
"""Between two looks at the folder."""
AFTER_CHANGE_S = 0.02
"""Longest wait between a file's change and the kill that it triggers."""
FORK = multiprocessing.get_context("fork")
State = Literal["older", "finished", "refused", "accepted"]
"""Of an artifact after a kill: as before, as after an undisturbed run, or neither: refused or, a bug, accepted."""

RECIPE = """\
batch = 4
[augmentation]
crop = [96, 192]
"""

PIPELINE = """\
title = "Scenes"
latency_frames = 1
[network]
net = "fastscnn"
weights = "scenes"
size = "96x192"
[data]
calibration = "scenes:count=4"
evaluation = "scenes:count=2"
[calibration]
count = 4
[engines]
compute_capabilities = ["8.6"]
[budget]
fp16 = 100
int8 = 100
[video]
source = "scenes:frames=6,seed=1"
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """One run of `roadseg`."""

    name: str
    arguments: str
    """As typed, in a folder that holds what the commands before it made."""
    older: tuple[str, str] = ("", "")
    """What to replace in the arguments, and by what, to make other files of the same names."""


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill and what it left."""

    on_change: bool
    """Whether a change in the folder triggered it."""
    share: float
    """Of a whole run, or of AFTER_CHANGE_S, that it let pass."""
    temporary: int
    """New temporary files: it met them being written."""
    states: Counter[State]
    """Of the artifacts."""


COMMANDS = (
    Command(
        "train",
        "train --net fastscnn --size 96x192 --data scenes:count=8 --val-split= --epochs 3 --recipe recipe.toml "
        "--seed 0 --out trained.safetensors --json",
        older=("--seed 0", "--seed 1"),
    ),
    Command(
        "import",
        "import --net fastscnn --from their.pth --size 96x192 --out imported.safetensors --json",
        older=("96x192", "96x224"),
    ),
    Command(
        "export",
        "export --net fastscnn --weights scenes --size 96x192 --out m.onnx --json",
        older=("96x192", "96x224"),
    ),
    Command(
        "calibrate",
        "calibrate m.onnx --data scenes:count=16 --count 16 --method entropy --out m.ranges --json",
        older=("entropy", "minmax"),
    ),
    Command(
        "quantize fp16",
        "quantize m.onnx --precision fp16 --out m_fp16.onnx --json",
        older=("fp16 ", "int8 --ranges m.ranges "),
    ),
    Command(
        "quantize int8",
        "quantize m.onnx --precision int8 --ranges m.ranges --out m_int8.onnx --json",
        older=("int8 --ranges m.ranges", "fp16"),
    ),
    Command(
        "build",
        "build m_int8.onnx --flavour rtx --compute-capability 8.6 --out m.plan --json",
        older=("8.6", "8.9"),
    ),
    Command("evaluate", "evaluate m_int8.onnx --data scenes:count=16 --json"),
    Command("parity", "parity m.onnx m_int8.onnx --data scenes:count=16 --budget 100 --json"),
    Command(
        "run",
        "run m_int8.onnx --source scenes:frames=24,seed=1 --out labelled.mp4 --json",
        older=("seed=1", "seed=2"),
    ),
    Command("inspect", "inspect m.plan --json"),
    Command("pipeline", "pipeline road.toml --json", older=("road", "older")),
)
"""In an order in which each finds its inputs."""


def study(folder: Path, names: Sequence[str], kills: int, seed: int) -> Iterator[dict[str, Any]]:
    """Study the named commands in `folder`, which is empty; returns the figures of each."""
    inputs = folder / "inputs"
    inputs.mkdir()
    # Not in this process: one that has computed in several threads cannot be forked.
    maker = FORK.Process(target=prepare, args=(inputs,))
    maker.start()
    maker.join()
    for command in COMMANDS:
        if command.name in names:
            dice = random.Random(f"{seed} {command.name}")
            yield Study(command, inputs, folder / command.name).run(kills, dice)
        finish(command, inputs)  # for those after it


class Study:
    """One command in a folder of its own."""

    def __init__(self, command: Command, inputs: Path, folder: Path) -> None:
        self.command = command
        self.inputs = inputs
        self.given = hashes(inputs)
        self.place = folder / "place"
        self.begin = folder / "begin"
        self.kills: list[Kill] = []
        self.through: list[list[str]] = []

    def run(self, kills: int, dice: random.Random) -> dict[str, Any]:
        """Kill the command `kills` times, let it end, and compare; returns the figures."""
        self.learn()
        fill(self.place, self.begin)
        while len(self.kills) < kills:
            self.disturb(dice)
        printed = finish(self.command, self.place)
        self.through.append(self.differences())
        return self.figures(printed)

    def learn(self) -> None:
        """Run undisturbed: in a process of its own, forked, and with other settings, for what stands there."""
        fill(self.place, self.inputs)
        self.printed = finish(self.command, self.place)
        self.files = self.made()
        self.whole_s = self.time(self.command.arguments)
        assert not self.differences(), "a forked process makes other files"
        self.time(self.command.arguments.replace(*self.command.older))
        self.older = self.made()
        self.place.rename(self.begin)

    def time(self, arguments: str) -> float:
        """Seconds of an undisturbed run in a forked process."""
        fill(self.place, self.inputs)
        begun = time.monotonic()
        kill(arguments, self.place, after_s=None)
        return time.monotonic() - begun

    def disturb(self, dice: random.Random) -> None:
        """One run that is killed, or gets through."""
        on_change, share = bool(self.files) and len(self.kills) % 2 == 1, dice.random()
        after_s = share * (AFTER_CHANGE_S if on_change else self.whole_s)
        if not self.differences():
            fill(self.place, self.begin)
        before = self.made()
        if kill(self.command.arguments, self.place, after_s, on_change):
            new = self.made().keys() - before.keys()
            temporary = sum(Path(name).name.startswith(".") for name in new)
            states = Counter(self.state(name) for name in self.artifacts())
            self.kills.append(Kill(on_change, share, temporary, states))
        else:
            self.through.append(self.differences())
            fill(self.place, self.begin)

    def made(self) -> dict[str, str]:
        """SHA-256 by name of every file that was not given, or was changed."""
        return {name: value for name, value in hashes(self.place).items() if self.given.get(name) != value}

    def differences(self) -> list[str]:
        """Files that an undisturbed run makes otherwise, or not at all."""
        now = self.made()
        return sorted(name for name in now.keys() | self.files.keys() if now.get(name) != self.files.get(name))

    def artifacts(self) -> list[str]:
        """What the command makes, but for manifests."""
        return [name for name in self.files if name.removesuffix(".json") not in self.files.keys() - {name}]

    def state(self, name: str) -> State:
        """Which artifact stands at a name, with its manifest where it has one."""
        both = [name, f"{name}.json"]
        found, finished, older = ([files.get(n) for n in both] for files in (self.made(), self.files, self.older))
        if found in (finished, older):
            return "finished" if found == finished else "older"
        return "refused" if refuses(name, self.place) else "accepted"

    def figures(self, printed: Any) -> dict[str, Any]:
        """What is kept of the study."""
        states = sum((found.states for found in self.kills), Counter[State]())
        return {
            "name": self.command.name,
            "command": f"roadseg {self.command.arguments}",
            "kills": len(self.kills),
            "kills_while_writing": sum(found.temporary > 0 for found in self.kills),
            "temporary_files": sum(found.temporary for found in self.kills),
            "artifacts_found": {state: states[state] for state in get_args(State)},
            "runs_that_got_through": len(self.through),
            "different_or_left_over": sorted({name for names in self.through for name in names}),
            "prints_the_same": printed == self.printed,
            "files": self.files,
            "moments": {
                "share_of_a_run": [round(found.share, 3) for found in self.kills if not found.on_change],
                "ms_after_a_change": [
                    round(1000 * AFTER_CHANGE_S * found.share, 1) for found in self.kills if found.on_change
                ],
            },
        }


def kill(arguments: str, place: Path, after_s: float | None, on_change: bool = False) -> bool:
    """Run a command and kill it with all its processes; False if it ended before that.

    Args:
        arguments: of roadseg.
        place: the folder it works in.
        after_s: seconds to give it; None leaves it alone.
        on_change: whether they count from the first change in the folder.
    """
    before = snapshot(place)
    process = start(arguments, place)
    while on_change and process.is_alive() and snapshot(place) == before:
        time.sleep(POLL_S)
    process.join(after_s)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), log(place).read_text()
    return process.exitcode != 0


def refuses(name: str, place: Path) -> bool:
    """Whether `roadseg inspect` refuses a file, in one sentence."""
    process = start(f"inspect {name}", place)
    process.join()
    said = log(place).read_text().splitlines()
    return process.exitcode == 1 and len(said) == 1 and said[0].startswith("roadseg: ")


def start(arguments: str, place: Path) -> BaseProcess:
    """A command in a forked process, the first of its own process group."""
    process = FORK.Process(target=work, args=(arguments, place))
    process.start()
    assert process.pid is not None
    os.setpgid(process.pid, process.pid)
    return process


def work(arguments: str, place: Path) -> None:
    """What the forked process does."""
    os.chdir(place)
    with log(place).open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = ["roadseg", *arguments.split()]
    cli.main()


def log(place: Path) -> Path:
    """What the last forked process in `place` said."""
    return place.with_suffix(".log")


def finish(command: Command, place: Path) -> Any:
    """Run a command in a process of its own; returns the JSON it printed, without measured times."""
    words = [sys.executable, "-m", "roadseg", *command.arguments.split()]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {key: value for key, value in json.loads(done.stdout).items() if key not in TIMED_VALUES}


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


def hashes(place: Path) -> dict[str, str]:
    """SHA-256 of every file by its name in `place`; of those with measured times, that they are there."""
    return {
        str(path.relative_to(place)): "measured times"
        if path.name in TIMED_FILES
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def fill(place: Path, source: Path) -> None:
    """Make `place` a fresh copy of `source`."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place)


def prepare(folder: Path) -> None:
    """Write what no command makes."""
    import torch

    from roadseg.train import build

    torch.manual_seed(0)
    torch.save(build("fastscnn", 19, aux=True).state_dict(), folder / "their.pth")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "road.toml").write_text(PIPELINE)
    (folder / "older.toml").write_text(PIPELINE.replace("96x192", "96x224"))


def import_libraries() -> dict[str, Any]:
    """Import what commands import later, for forked processes to have it; returns what the results depend on."""
    own = ("calib", "engines", "export", "importing", "inspect", "pipeline", "report", "runtime.video", "train")
    for name in (*LIBRARIES, *(f"roadseg.{module}" for module in own)):
        importlib.import_module(name)
    torch = importlib.import_module("torch")
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return versions | {"cores": os.cpu_count(), "torch_threads": torch.get_num_threads()}


def passed(result: dict[str, Any]) -> bool:
    """Whether nothing corrupt was accepted, nothing came out otherwise, and nothing was left over."""
    wrong = result["artifacts_found"]["accepted"] or result["different_or_left_over"]
    return not wrong and result["prints_the_same"]


def main() -> int:
    """Run the study; returns 1 if a command did not pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[command.name for command in COMMANDS])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    report = {"seed": arguments.seed, "conditions": import_libraries(), "commands": []}
    with tempfile.TemporaryDirectory() as folder:
        for result in study(Path(folder), arguments.only, arguments.kills, arguments.seed):
            report["commands"].append(result)
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")
            print("passed" if passed(result) else "FAILED", result, flush=True)
    return int(not all(passed(result) for result in report["commands"]))


if __name__ == "__main__":
    sys.exit(main())
