"""How a range is taken from the values seen: one line for each method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

from roadseg.runtime import UsageError

from .cache import Calibrator
from .entropy import entropy_threshold
from .histogram import Histogram, Maximum, MovingAverage, Statistic
from .mse import mse_threshold
from .percentile import percentile_threshold

Method = Literal["entropy", "minmax", "moving_average", "mse", "percentile"]
METHODS: tuple[Method, ...] = get_args(Method)


def parse_methods(text: str) -> tuple[Method, ...]:
    """Methods as given on the command line, separated by commas; each once.

    Raises:
        UsageError: if one is not known.

    >>> parse_methods("entropy,mse,entropy")
    ('entropy', 'mse')
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in METHODS:
            raise UsageError(f'there is no method "{name}"; take one or several of {",".join(METHODS)}.')
    return cast(tuple[Method, ...], names)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a method looks at, and what it takes from that."""

    statistic: type[Statistic]
    amax: Callable[[Any], float]
    """From a statistic of that type to the largest magnitude to represent; 0 if all values were 0."""
    calibrator: Calibrator
    """TensorRT's that is nearest. Its builders take a cache by EntropyCalibration2 unless told otherwise."""


RULES: dict[Method, Rule] = {
    "entropy": Rule(Histogram, lambda seen: seen.amax(entropy_threshold), "EntropyCalibration2"),
    "minmax": Rule(Maximum, lambda seen: seen.seen, "MinMaxCalibration"),
    "moving_average": Rule(MovingAverage, MovingAverage.amax, "MinMaxCalibration"),
    "mse": Rule(Histogram, lambda seen: seen.amax(mse_threshold), "EntropyCalibration2"),
    "percentile": Rule(Histogram, lambda seen: seen.amax(percentile_threshold), "EntropyCalibration2"),
}
