"""Latencies come raw, with what they are true of."""

import numpy as np
import pytest

from roadseg.runtime import Latency, ModelSpec, Segmenter, UsageError, latency, measure

SPEC = ModelSpec("tiny", height=2, width=4, classes=("road", "sky"))


class Recorder:
    """A backend that keeps what it was asked, and takes as long as the frame says."""

    name = "recorder 1.0"

    def __init__(self, clock):
        self.clock = clock
        self.asked = []

    def __call__(self, frames):
        self.asked.append(int(frames[0, 0, 0, 0]))
        self.clock.now += self.asked[-1] / 1000
        return frames[..., 0]


class Clock:
    now = 50.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def recorder(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    return Recorder(clock)


def frames(*milliseconds):
    return [np.full((2, 4, 3), ms, np.uint8) for ms in milliseconds]


def test_every_call_after_the_warm_up_is_a_sample_in_milliseconds(recorder):
    measured = measure(Segmenter(SPEC, recorder), frames(10, 20, 30), warmup=4, repeats=2)
    assert measured.samples_ms == pytest.approx((10, 20, 30, 10, 20, 30))
    # The warm-up goes through the frames in turn, too.
    assert recorder.asked == [10, 20, 30, 10, 10, 20, 30, 10, 20, 30]


def test_percentiles_by_hand():
    measured = Latency((4.0, 1.0, 3.0, 2.0, 5.0), {})
    assert measured.percentile_ms(50) == 3
    # The 90th lies at position 0.9 * 4 = 3.6 of the sorted samples, counted from 0.
    assert measured.percentile_ms(90) == pytest.approx(4 + 0.6)
    assert measured.percentile_ms(100) == 5


def test_the_conditions_are_told(recorder):
    told = measure(Segmenter(SPEC, recorder), frames(1), warmup=7).conditions
    assert told["backend"] == "recorder 1.0"
    assert told["network"] == "tiny"
    assert told["size"] == "2x4"
    assert told["batch"] == "1"
    assert told["scenario"].startswith("single_stream")
    assert told["warmup"] == "7 calls"
    assert int(told["cores"]) >= 1
    assert told["processor"]


def test_an_array_of_frames_is_as_good_as_a_list(recorder):
    assert len(measure(Segmenter(SPEC, recorder), np.stack(frames(1, 2))).samples_ms) == 2


@pytest.mark.parametrize(("given", "repeats"), [([], 1), (np.zeros((0, 2, 4, 3), np.uint8), 1), (frames(1), 0)])
def test_no_frames_give_no_latency(recorder, given, repeats):
    with pytest.raises(UsageError, match="at least one frame"):
        measure(Segmenter(SPEC, recorder), given, repeats=repeats)


def test_the_clock_is_a_real_one():
    class Sleeper:
        name = "sleeper"

        def __call__(self, frames):
            import time

            time.sleep(0.02)
            return frames[..., 0]

    # Never shorter than the sleep; how much longer is up to the machine.
    assert measure(Segmenter(SPEC, Sleeper()), frames(1), warmup=0).samples_ms[0] >= 20
