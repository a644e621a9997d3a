"""Weights and scales of a model tuned so that it answers in INT8 as it does in float32.

The float32 model is the teacher: on every frame its logits are what the model with rounded tensors is drawn to, so
that no labels are needed, and the classes that the network confuses it goes on to confuse. It may look at a frame
several times, and answers better then, see `Views`; or labels may count beside it. Then the network learns on,
with its tensors rounded.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor

from roadseg.runtime import (
    IGNORE,
    CalibrationError,
    DataError,
    Dataset,
    ModelSpec,
    Sample,
    UsageError,
    sha256_bytes,
    sha256_file,
    track,
    write_atomically,
)
from roadseg.runtime.data import refuse_other_classes
from roadseg.runtime.onnxfile import onnx_spec, save_onnx
from roadseg.runtime.pixels import fit, fit_labels

from .cache import save_ranges
from .calibrate import RangesDetails, portable_name
from .choose import ImageList, choose
from .fakequant import Int8Rounding
from .placement import place
from .provenance import stamp
from .quantize import ranges_of
from .ranges import batch_of, feed
from .source import load_float_model
from .state import state_path
from .survey import survey
from .teacher import ONCE, Teacher, Views, turned
from .torchgraph import TorchGraph, logits_of

log = logging.getLogger(__name__)

LAYOUT = 1
"""Of the state file; raised when what is kept in it changes its meaning."""
WARM_UP = 0.1
"""Part of the steps over which the rate rises; behind it falls to 0 as a cosine does."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How a model is tuned."""

    epochs: int
    """Times that every frame is seen."""
    batch: int
    """Frames that a step is the mean of."""
    rate: float
    """By which part of the root mean square of a tensor of weights a step changes them, about, where it is
    largest."""
    seed: int
    """Of the order of the frames, and of which are mirrored."""
    label_weight: float = 0
    """By how much labels count beside the float32 model's logits."""
    views: Views = ONCE
    """What the float32 model answers about a frame from."""


@dataclasses.dataclass(frozen=True)
class TunedDetails(RangesDetails):
    """What the manifest of tuned ranges tells."""

    tuning: Tuning


@dataclasses.dataclass(frozen=True)
class FinetuneReport:
    """A tuned model and its ranges as they were written."""

    path: Path
    """Of the float32 model."""
    sha256: str
    ranges: Path
    ranges_sha256: str
    images: int
    """How many were seen; fewer than asked for where the data set has no more."""
    images_sha256: str
    """Of their names and pixels."""
    layers: int
    """How many run in INT8."""
    steps: int
    """Of the optimizer."""
    losses: tuple[float, ...]
    """Mean over an epoch of how far the INT8 model's classes are from the float32 model's, the Kullback-Leibler
    divergence of a pixel in nats, and of `label_weight` times the cross-entropy with the labels."""


def finetune(
    model: Path,
    ranges: Path,
    dataset: Dataset,
    *,
    out: Path,
    count: int = 400,
    epochs: int = 4,
    batch: int = 4,
    rate: float = 3e-3,
    seed: int = 0,
    label_weight: float = 0,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    force: bool = False,
) -> FinetuneReport:
    """Write a float32 model with tuned weights, and its ranges beside it, for `quantize`.

    How far it has come is kept beside `out` (`<out>.state`) after every epoch; the same call goes on from there.
    With the same inputs and as many threads of PyTorch it writes the same bytes.

    Args:
        model: float32, as `export` writes it.
        ranges: of this very model, with which its scales begin.
        dataset: of which images are chosen, see `choose`.
        out: the ONNX file to write; the ranges get the same name with the suffix ".ranges".
        count: images to take, at most.
        epochs: times that each is seen, mirrored half of the times.
        batch: images that a step is the mean of.
        rate: by which part of its size a step changes a tensor of weights, about, where the rate is largest.
        seed: of the choice of images and their order.
        label_weight: by how much the data set's labels count beside the float32 model's answers; 0 leaves them
            alone. With them the model gets better or worse than it was, not only nearer to it.
        scales: of the frame, from 1, over which the float32 model's answer is the mean. With more than one, too,
            the model changes from what it was.
        flip: whether it is the mean over each of them mirrored, too.
        force: allow a split that accuracy is measured on.

    Raises:
        ArtifactError: if a file cannot be read or written.
        CalibrationError: if the images may not be used or too many of them are copies, the ranges are of another
            model, the model has operators that are not known here or no logits, or a logit is not finite.
        DataError: if an image cannot be read, or labels that are to count are missing or of other classes.
        UsageError: if a number is not positive, a scale is below 1, or `out` would replace `model` or `ranges`.
    """
    tuning = Tuning(epochs, batch, rate, seed, label_weight, Views(tuple(map(float, scales)), flip))
    refuse_senseless(tuning)
    refuse_overwriting((model, ranges), (out, ranges_path(out)))
    chosen = choose(dataset, count, seed, force)
    network = load_float_model(model)
    spec = onnx_spec(network, model)
    if label_weight:
        refuse_other_classes(dataset, spec)
    inputs = {"float_onnx": sha256_file(model), "float_ranges": sha256_file(ranges)}
    rounding = Int8Rounding(place(network), ranges_of(ranges, model, inputs["float_onnx"]))
    tuner = Tuner(network, spec, rounding, tuning, len(chosen))
    images, coverage = survey(dataset, chosen)
    listed = ImageList(portable_name(dataset.name), dataset.split, seed, images)
    tuner.run(dataset, chosen, state_path(out), state_key(inputs, listed, tuning))
    report = write_tuned(out, network, tuner, TunedDetails("learned", listed, coverage, tuning), inputs)
    state_path(out).unlink(missing_ok=True)
    return report


def write_tuned(
    out: Path, network: onnx.ModelProto, tuner: Tuner, details: TunedDetails, inputs: dict[str, str]
) -> FinetuneReport:
    """Write a model with the weights that were learned, and the ranges beside it, with a manifest."""
    store_weights(network, tuner.student)
    stamp(network, "fp32", inputs | {"tuning_images": details.images.sha256})
    save_onnx(out, network)
    sha256 = sha256_file(out)
    made_from = inputs | {"onnx": sha256, "images": details.images.sha256}
    ranges, found = ranges_path(out), tuner.rounding.ranges()
    ranges_sha256 = save_ranges(ranges, found, tuner.spec, inputs=made_from, details=details, library="torch")
    return FinetuneReport(
        path=out,
        sha256=sha256,
        ranges=ranges,
        ranges_sha256=ranges_sha256,
        images=len(details.images.images),
        images_sha256=details.images.sha256,
        layers=len(tuner.rounding.layers),
        steps=tuner.total,
        losses=tuple(tuner.losses),
    )


def ranges_path(out: Path) -> Path:
    """Where the ranges of a tuned model stand."""
    return out.with_suffix(".ranges")


class Tuner:
    """Draws a model with rounded tensors to the same model without."""

    def __init__(
        self, network: onnx.ModelProto, spec: ModelSpec, rounding: Int8Rounding, tuning: Tuning, images: int
    ) -> None:
        """Begin with the weights of `network`; errors as `TorchGraph` and `logits_of`."""
        logits = logits_of(network)
        self.spec = spec
        self.network_batch = batch_of(network)
        self.teacher = Teacher(TorchGraph(network, [logits]), spec, self.network_batch, tuning.views)
        self.student = TorchGraph(network, [logits])
        self.rounding = rounding
        self.tuning = tuning
        self.steps_per_epoch = math.ceil(images / tuning.batch)
        self.optimizer = torch.optim.Adam(parameter_groups(self.student, rounding, tuning.rate))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.losses: list[float] = []
        """Of the epochs done."""

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.steps_per_epoch * self.tuning.epochs

    def run(self, dataset: Dataset, chosen: Sequence[int], state: Path, key: str) -> None:
        """Run the epochs that are left, and keep the state in a file after each."""
        load_state(state, key, self)
        for epoch in range(len(self.losses), self.tuning.epochs):
            self.losses.append(self.run_epoch(dataset, chosen, epoch))
            save_state(state, key, self)

    def run_epoch(self, dataset: Dataset, chosen: Sequence[int], epoch: int) -> float:
        """See every image once, in an order that depends on seed and epoch alone; returns the mean loss."""
        rng = np.random.default_rng((self.tuning.seed, epoch))
        order = [(chosen[i], bool(rng.random() < 0.5)) for i in rng.permutation(len(chosen))]
        shown = track(order, f"tune, epoch {epoch + 1} of {self.tuning.epochs}")
        losses: list[float] = []
        for step, batch in enumerate(batches(shown, self.tuning.batch), start=epoch * self.steps_per_epoch):
            losses += self.step(dataset, batch, step)
        return float(np.mean(losses))

    def step(self, dataset: Dataset, batch: Sequence[tuple[int, bool]], step: int) -> list[float]:
        """Move the weights once, by the mean gradient of some images; returns their losses."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * schedule(step, self.total)
        self.optimizer.zero_grad()
        losses = [self.add_gradient(dataset, index, mirrored, len(batch)) for index, mirrored in batch]
        self.optimizer.step()
        return losses

    def add_gradient(self, dataset: Dataset, index: int, mirrored: bool, images: int) -> float:
        """Add one of several images' share to the gradients; returns its loss.

        Raises:
            CalibrationError: if that is not finite.
        """
        sample = dataset[index]
        frame = turned(fit(sample.frame, self.spec), mirrored)
        fed = torch.from_numpy(feed(frame, self.spec, self.network_batch))
        wanted = self.teacher.answer(index, sample.frame, mirrored)
        (found,) = self.student(fed, self.rounding)
        loss = divergence(wanted, found)
        if self.tuning.label_weight:
            labels = turned(fit_labels(labels_of(sample, self.spec), self.spec), mirrored)
            loss = loss + self.tuning.label_weight * cross_entropy(found, labels, self.spec.align_corners)
        (loss / images).backward()  # type: ignore[no-untyped-call]
        if not math.isfinite(loss.item()):
            raise CalibrationError(
                f"the logits of {dataset.keys[index].name} became infinite or NaN; take a lower rate than "
                f"{self.tuning.rate:g}, or check the network's weights."
            )
        return loss.item()


def divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the classes of `found` from those of `wanted`, mean over pixels.

    Args:
        wanted: logits `(N, classes, h, w)`.
        found: logits of the same shape.
    """
    pixels = wanted.numel() / wanted.shape[1]
    total = F.kl_div(F.log_softmax(found, 1), F.log_softmax(wanted, 1), reduction="sum", log_target=True)
    return total / pixels


def cross_entropy(found: Tensor, labels: npt.NDArray[np.uint8], align_corners: bool) -> Tensor:
    """Of logits, brought to the labels' size, mean over the pixels that are labelled; 0 where none is.

    Args:
        found: logits `(N, classes, h, w)`.
        labels: train ids `(H, W)` of all N.
        align_corners: how the model enlarges its logits.
    """
    enlarged = F.interpolate(found, labels.shape, mode="bilinear", align_corners=align_corners)
    wanted = torch.from_numpy(labels.astype(np.int64)).expand(len(found), -1, -1)
    total = F.cross_entropy(enlarged, wanted, ignore_index=IGNORE, reduction="sum")
    return total / max(int((wanted != IGNORE).sum()), 1)


def labels_of(sample: Sample, spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """The labels of a frame.

    Raises:
        DataError: if it has none, or they are of another size or none of the model's classes.
    """
    if sample.labels is None or sample.labels.shape != sample.frame.shape[:2]:
        shape = "no labels" if sample.labels is None else f"labels of {sample.labels.shape}"
        raise DataError(
            f"{sample.key.name} has {shape} for a frame of {sample.frame.shape[:2]}, and they are to count; "
            "leave --label-weight out, or give data with labels."
        )
    largest = int(sample.labels.max(where=sample.labels != IGNORE, initial=0))
    if largest >= len(spec.evaluated):
        raise DataError(
            f"{sample.key.name} has the label {largest}, which is none of the model's {len(spec.evaluated)} "
            f"classes and not {IGNORE}, for pixels that do not count."
        )
    return sample.labels


def parameter_groups(student: TorchGraph, rounding: Int8Rounding, rate: float) -> list[dict[str, object]]:
    """What is tuned, each tensor at a rate in proportion to its size; one that is all zeros stays.

    Adam moves every element by about the rate, whatever its gradient.
    """
    weights = [
        {"params": [tensor], "lr": rate * tensor.detach().square().mean().sqrt().item()}
        for tensor in student.weights.values()
    ]
    return [*weights, {"params": [rounding.shift], "lr": rate}]


def schedule(step: int, total: int) -> float:
    """Part of the largest rate that a step is made with: a rise, then half a cosine.

    >>> [round(schedule(step, 20), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.01]
    """
    rising = max(1, round(WARM_UP * total))
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1))) / 2


def batches(items: Iterable[tuple[int, bool]], size: int) -> Iterator[list[tuple[int, bool]]]:
    """Items in groups; the last may be smaller."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def store_weights(network: onnx.ModelProto, student: TorchGraph) -> None:
    """Put tuned weights into the model they came from, in place."""
    weights = student.weights
    for tensor in network.graph.initializer:
        if tensor.name in weights:
            values: npt.NDArray[np.float32] = weights[tensor.name].detach().numpy()
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def refuse_senseless(tuning: Tuning) -> None:
    """Raise UsageError unless every number is one to tune with."""
    if tuning.epochs < 1 or tuning.batch < 1 or not 0 < tuning.rate < 1 or tuning.seed < 0:
        raise UsageError(
            "fine-tuning needs at least one epoch, one image a step, a rate between 0 and 1 and a seed of 0 or "
            f"more; got {tuning.epochs}, {tuning.batch}, {tuning.rate:g} and {tuning.seed}."
        )
    if not 0 <= tuning.label_weight < math.inf:
        raise UsageError(f"labels count with a weight of 0 or more, got {tuning.label_weight:g}.")
    tuning.views.refuse_senseless()


def refuse_overwriting(sources: Sequence[Path], written: Sequence[Path]) -> None:
    """Raise UsageError if a file that is read would be replaced, or one that is written by another."""
    if len(set(written)) < len(written):
        raise UsageError(f"{written[0]} is for the model, and its ranges would replace it; call it .onnx.")
    for path in written:
        if path.resolve() in [source.resolve() for source in sources]:
            raise UsageError(f"{path} is read, and would be replaced by what is written; give another --out.")


def state_key(inputs: dict[str, str], images: ImageList, tuning: Tuning) -> str:
    """Another one whenever what was tuned cannot be gone on with."""
    return sha256_bytes(msgspec.json.encode([LAYOUT, str(torch.__version__), inputs, images.sha256, tuning]))


def save_state(path: Path, key: str, tuner: Tuner) -> None:
    """Write how far a tuner has come.

    Raises:
        ArtifactError: if the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(
        {
            "key": key,
            "losses": tuner.losses,
            "student": tuner.student.state_dict(),
            "rounding": tuner.rounding.state_dict(),
            "optimizer": tuner.optimizer.state_dict(),
        },
        buffer,
    )
    write_atomically(path, buffer.getvalue())


def load_state(path: Path, key: str, tuner: Tuner) -> None:
    """Bring a tuner to where `save_state` was called; a state that is damaged or of another run is left alone."""
    if not path.is_file():
        return
    try:
        state = torch.load(path, weights_only=True)
        found = state["key"]
    except Exception:  # whatever zipfile, pickle and torch raise
        log.warning("%s is damaged; fine-tuning begins anew", path)
        return
    if found != key:
        log.info("%s is of another run; this one begins anew", path)
        return
    tuner.student.load_state_dict(state["student"])
    tuner.rounding.load_state_dict(state["rounding"])
    tuner.optimizer.load_state_dict(state["optimizer"])
    tuner.losses = list(state["losses"])
    log.info("%s: %d epochs are done already", path, len(tuner.losses))
