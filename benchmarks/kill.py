"""Kill a pipeline at random moments, run it again, and compare with an undisturbed run, byte for byte.

Run: python -m benchmarks.kill TOML [--kills 20] [--seed 0] [--from-share 0] [--out results.json]

TOML is a pipeline's file; each of its steps is one command's work. Compared is every file that the pipeline makes
but those that hold measured times (latency.json, video.json, report.html).
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

TIMED = {"latency.json", "video.json", "report.html"}


def run(config: Path, kill_after_s: float | None = None) -> int:
    """One run of the pipeline; returns its exit code, -9 if it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "roadseg", "pipeline", config.name], cwd=config.parent, stderr=subprocess.DEVNULL
    )
    try:
        return process.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return process.wait()


def hashes(out: Path) -> dict[str, str]:
    """SHA-256 of every compared file by name."""
    files = (path for path in sorted(out.iterdir()) if path.is_file() and path.name not in TIMED)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> int:
    """Run the study; returns 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--from-share", type=float, default=0.0, help="of the whole run, before which none is killed"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config = arguments.config.resolve()
    out = config.parent / "out"

    shutil.rmtree(out, ignore_errors=True)
    begun = time.monotonic()
    assert run(config) == 0
    whole_s = time.monotonic() - begun
    undisturbed = hashes(out)
    shutil.rmtree(out)

    dice = random.Random(arguments.seed)
    kills = []
    while len(kills) < arguments.kills:
        after_s = dice.uniform(arguments.from_share * whole_s, whole_s)
        if run(config, after_s) == -signal.SIGKILL:
            kills.append({"after_s": round(after_s, 2), "files": sorted(p.name for p in out.glob("*"))})
        else:  # it got through: begin anew, so that every kill meets work
            shutil.rmtree(out)
    assert run(config) == 0
    disturbed = hashes(out)
    different = sorted(n for n in undisturbed.keys() | disturbed.keys() if undisturbed.get(n) != disturbed.get(n))
    result = {
        "whole_s": whole_s,
        "from_share": arguments.from_share,
        "kills": kills,
        "compared": undisturbed,
        "different": different,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(kills)} kills, {len(undisturbed)} files compared, different: {different or 'none'}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
