"""How far another form of a model is from the float32 model, in what it says of the classes.

That is the Kullback-Leibler divergence of the classes' probabilities: it needs no labels, and weighs pixels about
whose class the network is in doubt, which are those that change their label.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from roadseg.runtime import CalibrationError, ModelSpec

from .logits import find_logits
from .observe import Frame
from .ranges import batch_of, expose, feed, open_session

Logits = npt.NDArray[np.float32]
"""`(N, C, ...)`: what a model says for each class, before it is enlarged."""
LogProbabilities = npt.NDArray[np.float64]


class Divergence:
    """What a float32 model says of a few frames, and how far other forms of it are from that.

    Holds frames and logits in memory, for every form needs them.
    """

    def __init__(self, network: onnx.ModelProto, spec: ModelSpec, frames: Iterable[Frame]) -> None:
        """Answer `frames` once as float32.

        Raises:
            CalibrationError: if there are no logits, or one is not finite.
        """
        logits = find_logits(network)
        if logits is None:
            raise CalibrationError(
                f'the answer "{network.graph.output[0].name}" does not come from logits of classes, which INT8 '
                "models are compared by."
            )
        self._logits = logits
        self._input = network.graph.input[0].name
        self._fed = [feed(frame, spec, batch_of(network)) for frame in frames]
        session = self.open(network)
        self._wanted = [log_softmax(session.run(None, {self._input: fed})[0]) for fed in self._fed]

    def open(self, model: onnx.ModelProto) -> Any:
        """A session that gives the logits of another form of the model."""
        return open_session(expose(model, [self._logits]))

    def of(
        self, session: Any, fed: Mapping[str, npt.NDArray[Any]] | None = None, limit: float = math.inf
    ) -> float:
        """The mean over positions and frames, in nats; infinite where it is at least `limit`.

        Args:
            session: from `open`.
            fed: what it takes beside frames.
            limit: as soon as the mean is seen to be no less, the rest is left out.

        Raises:
            CalibrationError: if a logit is not finite.
        """
        total = 0.0
        for divergence in self._frame_by_frame(session, fed or {}):
            total += divergence / len(self._fed)
            if total >= limit:
                return math.inf
        return total

    def by_frame(self, session: Any) -> npt.NDArray[np.float64]:
        """The mean over positions of each frame, in nats.

        Raises:
            CalibrationError: if a logit is not finite.
        """
        return np.array(list(self._frame_by_frame(session, {})))

    def _frame_by_frame(self, session: Any, fed: Mapping[str, npt.NDArray[Any]]) -> Iterator[float]:
        for frame, wanted in zip(self._fed, self._wanted, strict=True):
            given = log_softmax(session.run(None, {self._input: frame, **fed})[0])
            # Rounding may make it a little less than 0.
            yield max(float((np.exp(wanted) * (wanted - given)).sum(axis=1).mean()), 0.0)


def log_softmax(logits: Logits) -> LogProbabilities:
    """Logarithms of the classes' probabilities, in float64.

    Raises:
        CalibrationError: if a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise CalibrationError("the logits hold infinite values or NaN on an image; check the network's weights.")
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: LogProbabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
