"""`make demo`: the whole way with the shipped weights, on generated scenes or, with ROADSEG_DATA, on real ones.

Run: python -m benchmarks.demo [FOLDER]     (FOLDER is out/demo unless said otherwise)
"""

import os
import subprocess
import sys
from pathlib import Path

SCENES = """\
title = "Fast-SCNN on generated road scenes"
out = "."
latency_frames = 20

[network]
net = "fastscnn"
weights = "scenes"
size = "256x512"

[data]
calibration = "scenes:count=64"
evaluation = "scenes:count=40"

[calibration]
count = 64

[engines]
flavour = "rtx"
compute_capabilities = ["8.6", "8.9"]

[video]
source = "scenes:frames=96,seed=1"
"""

CAMVID = """\
title = "Fast-SCNN on CamVid"
out = "."
latency_frames = 20

[network]
net = "fastscnn"
weights = "camvid"
size = "360x480"

[data]
calibration = "camvid:{data}/camvid"
evaluation = "camvid:{data}/camvid"

[calibration]
count = 64

[engines]
flavour = "rtx"
compute_capabilities = ["8.6", "8.9"]

[video]
source = "{data}/video/dashcam_1280x720.mp4"
"""


def main(folder: Path) -> int:
    """Write the pipeline's TOML file into `folder` and run it; returns the exit code."""
    data = os.environ.get("ROADSEG_DATA")
    config = folder / "road.toml"
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(CAMVID.format(data=Path(data).resolve()) if data else SCENES)
    print(f"roadseg pipeline {config}", flush=True)
    code = subprocess.run([sys.executable, "-m", "roadseg", "pipeline", str(config)], check=False).returncode
    if code == 0:
        print(f"\nOpen {folder / 'report.html'} in a browser; the labelled video is {folder / 'labelled.mp4'}.")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo")))
