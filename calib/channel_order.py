"""Whether frames come in the channel order that a network was trained on.

A network is surer of its labels on frames as it knows them than on frames with red and blue swapped. So some run
through the float32 model both ways. Where it is clearly surer of them swapped, either the frames are BGR where RGB
is promised, or the model's spec names the wrong order.

How sure it is: the largest softmax of its logits, averaged over positions. Measured with Fast-SCNN, 8 frames each,
swapping changed it

- by -0.10 to -0.16 on CamVid, in 8 choices of frames from `train` and `val`, and by -0.10 to -0.13 on generated
  scenes, with the weights trained there, on every frame;
- by +0.03 and +0.005, standard errors of 0.02 and 0.006, where either network saw the other's frames;
- by -0.025 to +0.012, at most two standard errors, with random weights of Fast-SCNN, BiSeNetV2, DDRNet-23-slim,
  PIDNet-S, STDC1 and ENet, three seeds each, with batch norms as they begin and after they have seen frames.

Nothing is decided on fewer than `FRAMES` frames. Wrong mean and std are not looked for: they are in the graph.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from roadseg.runtime import CalibrationError, Dataset, ModelSpec
from roadseg.runtime.pixels import fit

from .logits import find_logits
from .ranges import batch_of, expose, feed, open_session

log = logging.getLogger(__name__)

FRAMES = 8
"""How many are looked at."""
GAIN = 0.05
"""By how much surer a network has to be of swapped frames on average: half of what the least clear of those above
would be, and twice the most that any other gave."""
STANDARD_ERRORS = 3
"""And by how many standard errors of that average."""
FAVOUR = 7
"""And on how many of the `FRAMES` frames."""


def refuse_swapped(model: onnx.ModelProto, spec: ModelSpec, dataset: Dataset, chosen: Sequence[int]) -> None:
    """Stop if a network is clearly surer of frames with red and blue swapped.

    Args:
        model: float32.
        spec: of it.
        dataset: that the frames are of.
        chosen: indices of calibration images, of which `FRAMES` are looked at, evenly spread.

    Raises:
        CalibrationError: naming the data set.
        DataError: if an image cannot be read.
    """
    logits = find_logits(model, enlarged=True)
    if logits is None or len(chosen) < FRAMES:
        log.info("%s: too few frames, or no logits, to tell whether red and blue are swapped", dataset.name)
        return
    spread = [chosen[round(i)] for i in np.linspace(0, len(chosen) - 1, FRAMES)]
    frames = (fit(dataset[index].frame, spec) for index in spread)
    sureness = measure_sureness(model, spec, logits, frames)
    if prefers_swapped(sureness):
        as_given, swapped = sureness.mean(axis=0)
        raise CalibrationError(
            f"the frames of {dataset.name} look BGR where they have to be RGB: on {FRAMES} of them {spec.name} is "
            f"{100 * as_given:.1f} % sure of its labels as they come, and {100 * swapped:.1f} % with red and blue "
            f'swapped. Give RGB frames. If they are, its spec is wrong to say channels = "{spec.channels}": '
            "export it with the other. If both are right, calibrate without the check (--no-check-colours)."
        )


def prefers_swapped(sureness: npt.NDArray[np.float64]) -> bool:
    """Whether a network is clearly surer of swapped frames.

    Args:
        sureness: `(FRAMES, 2)`, of each frame as it is, and swapped.
    """
    gains = sureness[:, 1] - sureness[:, 0]
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    clear = gains.mean() >= max(GAIN, STANDARD_ERRORS * error)
    return bool(clear and (gains > 0).sum() >= FAVOUR)


def measure_sureness(
    model: onnx.ModelProto, spec: ModelSpec, logits: str, frames: Iterable[npt.NDArray[np.uint8]]
) -> npt.NDArray[np.float64]:
    """How sure a model is of frames of its size, as they are and with red and blue swapped: `(N, 2)`, 0 to 1."""
    session, batch = open_session(expose(model, [logits])), batch_of(model)
    name = model.graph.input[0].name

    def sure(frame: npt.NDArray[np.uint8]) -> float:
        (values,) = session.run(None, {name: feed(np.ascontiguousarray(frame), spec, batch)})
        return mean_sureness(values[0])

    return np.array([[sure(frame), sure(frame[..., ::-1])] for frame in frames])


def mean_sureness(logits: npt.NDArray[np.float32]) -> float:
    """The largest softmax of logits `(classes, ...)`, averaged over positions.

    >>> round(mean_sureness(np.log(np.array([[1, 3], [3, 1]], np.float32))), 6)
    0.75
    """
    with np.errstate(invalid="ignore"):  # infinite logits make it NaN; collecting ranges names the tensor
        below = logits.astype(np.float64) - logits.max(axis=0)
        return float((1 / np.exp(below).sum(axis=0)).mean())
