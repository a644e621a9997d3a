"""What test_parallel.py runs alone and under torchrun: thirty steps in which every kind of loss has a part.

python train_together.py OUT [PAUSE]: the checkpoint goes to OUT, each step's loss to OUT.losses, each process's id
to OUT.RANK.pid. After each step the first process waits for PAUSE seconds.
"""

import logging
import os
import sys
import time
from pathlib import Path

import torch

from roadseg.train import Augmentation, Loss, Recipe, Run, open_data, train

LOSS = Loss(
    "ohem", aux_weight=(0.5,), aux_kind="ce", ohem_threshold=0.01, ohem_share=0.25, edges="boundary", affinity=0.5
)
RECIPE = Recipe(
    Augmentation((32, 48), scale=(0.5, 1.5)), LOSS, "cityscapes", epochs=15, batch=4, rate=0.02, ema=0.5
)


def main(out: Path, pause: float) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO)
    out.with_suffix(f".{os.environ.get('RANK', '0')}.pid").write_text(str(os.getpid()))
    with out.with_suffix(".losses").open("a") as losses:

        def note(step: int, loss: float) -> None:
            losses.write(f"{step} {loss!r}\n")
            losses.flush()
            time.sleep(pause)

        run = Run("small_nets:branched", (64, 96), RECIPE, seed=1)
        train(run, open_data("scenes:count=8,size=64x96", "train"), out, workers=0, keep=True, watch=note)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0)
