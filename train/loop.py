"""The training loop: resumable at every epoch, and bit-identical on the CPU whether interrupted or not."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from roadseg.runtime import (
    CITYSCAPES,
    ArtifactError,
    Dataset,
    ModelSpec,
    Segmenter,
    Size,
    UsageError,
    evaluate,
    sha256_bytes,
    track,
    write_atomically,
)
from roadseg.runtime.backends.torch import TorchBackend

from .batches import AugmentedSamples, Batch, EpochBatches, load_batches
from .checkpoint import Checkpoint, save_checkpoint
from .losses import CITYSCAPES_WEIGHTS, log_class_weights
from .models import build
from .objective import Objective, precision_on
from .optimizer import make_optimizer, rate_schedule
from .parallel import Processes, apart, distribute, join_processes, total
from .recipe import Recipe

log = logging.getLogger(__name__)

T = TypeVar("T")
Watch = Callable[[int, float], None]
"""Told the number of a step, from 0, and its loss over all processes."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What is trained, on what, how; two runs of the same fields give the same weights on the same machine."""

    net: str
    size: Size
    """Of the frames at evaluation and of the model, in pixels; the crop of training is the recipe's."""
    recipe: Recipe
    seed: int = 0

    def spec(self, dataset: Dataset, align_corners: bool) -> ModelSpec:
        """The contract of the trained network."""
        labels = dataset.label_set
        return ModelSpec(self.net, *self.size, labels.classes, labels.palette, align_corners=align_corners)


def train(
    run: Run,
    dataset: Dataset,
    out: Path,
    *,
    val: Dataset | None = None,
    val_every: int = 10,
    workers: int = 1,
    keep: bool = False,
    resume: bool = True,
    watch: Watch | None = None,
) -> Checkpoint:
    """Train a network and write its checkpoint to `out`.

    After every epoch the whole state is written beside it (`<out>.state`), and removed at the end. Under
    torchrun each process takes its share of every batch, and the weights come out as those of a single process;
    all must see the folder of `out`, and the first one alone writes, evaluates and logs.

    Args:
        run: network, size, recipe and seed.
        dataset: frames with labels.
        out: where the checkpoint goes, a `.safetensors` file.
        val: measured every `val_every` epochs and after the last one.
        val_every: in epochs.
        workers: processes that decode and augment, per training process.
        keep: hold samples in memory once read; for data sets that are slow to read and small.
        resume: go on from `<out>.state` where there is one of the same run.
        watch: told of every step, in the first process.

    Returns:
        What was written; under torchrun only the first process knows its mIoU.

    Raises:
        DataError: if a frame has no labels, or cannot be read.
        UsageError: if the recipe does not fit the network or the classes.
        ArtifactError: if the state found belongs to another run.
    """
    with join_processes() as group:
        session = Session.start(run, dataset, group)
        state_path = out.with_name(out.name + ".state")
        if resume and state_path.is_file():
            session.load(state_path)
        loader = load_batches(
            AugmentedSamples(dataset, run.recipe.augmentation, run.seed, keep), session.batches, workers
        )
        for epoch in range(session.epoch, run.recipe.epochs):
            loss = session.train_epoch(epoch, loader, watch)
            if group.first:
                log.info("epoch %d of %d: loss %.4f", epoch + 1, run.recipe.epochs, loss)
                write_atomically(state_path, session.dump())
                if val is not None and (epoch + 1) % val_every == 0 and epoch + 1 < run.recipe.epochs:
                    log.info("epoch %d: mIoU %.2f", epoch + 1, 100 * session.miou(val))
        checkpoint = session.checkpoint(dataset, val if group.first else None)
        if group.first:
            save_checkpoint(out, checkpoint)
            state_path.unlink(missing_ok=True)
        return checkpoint


class Session:
    """A network in training: weights, averaged weights, optimizer, and the epoch reached."""

    def __init__(
        self, run: Run, net: nn.Module, spec: ModelSpec, batches: EpochBatches, class_weights: Tensor | None,
        data: str, group: Processes,
    ) -> None:  # fmt: skip
        self.run = run
        self.spec = spec
        self.batches = batches
        self.group = group
        self.data = data
        self.net = net.to(group.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = {name: value.clone() for name, value in self.net.state_dict().items()}
        precision = precision_on(group.device, run.recipe.precision)
        self.objective = Objective(self.net, spec, run.recipe.loss, class_weights, precision).to(group.device)
        self.parallel = distribute(self.objective, group)
        self.optimizer = make_optimizer(self.net, run.recipe)
        if self.objective.kernels is not None:
            kernels = list(self.objective.kernels.parameters())
            self.optimizer.add_param_group({"params": kernels, "lr": run.recipe.rate, "weight_decay": 0.0})
        self.steps = run.recipe.epochs * len(batches)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate_schedule(run.recipe, self.steps))
        self.scaler = torch.amp.GradScaler(enabled=precision == torch.float16)
        self.epoch = 0

    @classmethod
    def start(cls, run: Run, dataset: Dataset, group: Processes) -> Session:
        """A session before its first step."""
        torch.manual_seed(run.seed)
        net = build(run.net, len(dataset.label_set.classes), aux=True)
        spec = run.spec(dataset, align_corners=bool(getattr(net, "align_corners", False)))
        batches = EpochBatches(len(dataset), run.recipe.batch, run.seed, group.rank, group.world)
        weights = class_weights(run.recipe, dataset, group)
        return cls(run, net, spec, batches, weights, dataset.name.partition(":")[0], group)

    def train_epoch(self, epoch: int, loader: Any, watch: Watch | None = None) -> float:
        """Every batch once; returns the mean loss over all processes."""
        # Dropout: the same however often the run was resumed, another in each process.
        torch.manual_seed(self.run.seed * 1_000_003 + epoch + (self.group.rank << 32))
        self.batches.epoch = epoch
        self.parallel.train()
        sum_of_losses = 0.0
        for batch in shown(loader, f"epoch {epoch + 1}", len(self.batches), self.group):
            step = self.schedule.last_epoch
            loss = self._step(batch)
            sum_of_losses += loss
            if watch is not None and self.group.first:
                watch(step, loss)
        self.epoch = epoch + 1
        return sum_of_losses / len(self.batches)

    def _step(self, batch: Batch) -> float:
        """One step of the optimizer; returns the loss over all processes."""
        parts = [x.to(self.group.device, non_blocking=True).chunk(self.run.recipe.accumulate) for x in batch]
        shares = self._shares(parts[1])
        self.optimizer.zero_grad(set_to_none=True)
        losses = [
            self._backward(frames, labels, share, last=i == len(shares) - 1)
            for i, (frames, labels, share) in enumerate(zip(*parts, shares, strict=True))
        ]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self._average()
        return float(total(torch.stack(losses).sum()) / self.group.world)

    def _backward(self, frames: Tensor, labels: Tensor, share: Tensor, last: bool) -> Tensor:
        """Add the gradient of a part of the batch, and exchange gradients after the last one."""
        with contextlib.nullcontext() if last else apart(self.parallel):
            loss: Tensor = self.parallel(frames, labels, self.schedule.last_epoch / self.steps) * share
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _shares(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """How much each part of a batch counts: as much as its labelled pixels do among all of the batch's."""
        loss, weights = self.run.recipe.loss, self.objective.class_weights
        masses = total(torch.stack([loss.mass(labels, weights) for labels in parts]))
        return list(masses / masses.sum().clamp(min=torch.finfo(masses.dtype).tiny))

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights towards the current ones, faster at first: they started at random."""
        step = self.schedule.last_epoch
        decay = min(self.run.recipe.ema, step / (step + 10))
        for name, value in self.net.state_dict().items():
            if decay and value.is_floating_point():
                self.averaged[name].lerp_(value, 1 - decay)
            else:
                self.averaged[name].copy_(value)

    def result(self) -> nn.Module:
        """The network to evaluate and save: averaged weights, without auxiliary heads."""
        net = build(self.run.net, len(self.spec.classes))
        net.load_state_dict({name: self.averaged[name] for name in net.state_dict()})
        return net.eval()

    def miou(self, val: Dataset) -> float:
        """Mean IoU on `val`, in [0, 1]."""
        backend = TorchBackend(self.result(), self.spec, device=str(self.group.device))
        return evaluate(Segmenter(self.spec, backend), val).miou

    def checkpoint(self, dataset: Dataset, val: Dataset | None) -> Checkpoint:
        """The trained weights with their history."""
        provenance = {
            "data": f"{self.data} {dataset.split}",
            "run": msgspec.json.encode(self.run).decode(),
            "torch": torch.__version__,
        }
        if val is not None:
            provenance["miou"] = f"{100 * self.miou(val):.2f} on {self.data} {val.split}, {len(val)} frames"
        return Checkpoint(self.spec, self.result().state_dict(), provenance)

    def dump(self) -> bytes:
        """Everything needed to go on, as bytes for `load`."""
        buffer = io.BytesIO()
        torch.save(
            {
                "run": self._identity(),
                "epoch": self.epoch,
                "net": self.net.state_dict(),
                "averaged": self.averaged,
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.last_epoch,
                "scaler": self.scaler.state_dict(),
                "kernels": self.objective.kernels.state_dict() if self.objective.kernels is not None else {},
            },
            buffer,
        )
        return buffer.getvalue()

    def load(self, path: Path) -> None:
        """Go on from what `dump` gave.

        Raises:
            ArtifactError: if the file is damaged or belongs to another run.
        """
        try:
            state = torch.load(path, map_location=self.group.device, weights_only=True)
        except Exception as error:  # whatever zipfile, pickle and torch raise
            raise ArtifactError(f"{path} is not a training state; delete it to start again.") from error
        if state.get("run") != self._identity():
            raise ArtifactError(
                f"{path} belongs to a run with other settings or data. Finish that one, delete the file, or write "
                "to another --out."
            )
        self.net.load_state_dict(state["net"])
        self.averaged = state["averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = state["schedule"]
        self.scaler.load_state_dict(state["scaler"])
        if self.objective.kernels is not None:
            self.objective.kernels.load_state_dict(state["kernels"])
        self.epoch = state["epoch"]
        if self.group.first:
            log.info("going on from epoch %d", self.epoch)

    def _identity(self) -> str:
        return sha256_bytes(msgspec.json.encode((self.run, self.data, self.batches.length)))


def class_weights(recipe: Recipe, dataset: Dataset, group: Processes) -> Tensor | None:
    """What a pixel of each class weighs, `(C,)`; None where all weigh alike.

    Raises:
        UsageError: if the recipe has fixed weights, for other classes.
    """
    classes = dataset.label_set.classes
    if recipe.class_weights == "none":
        return None
    if recipe.class_weights == "log":
        return log_class_weights(class_counts(dataset, group))
    if classes != CITYSCAPES.classes:
        raise UsageError(
            f"the recipe weighs the {len(CITYSCAPES.classes)} classes of Cityscapes, but {dataset.name} has "
            f'{len(classes)} others; put class_weights = "log" or "none" in a file for --recipe.'
        )
    return torch.tensor(CITYSCAPES_WEIGHTS)


def class_counts(dataset: Dataset, group: Processes) -> Tensor:
    """Pixels of each class in the labels of the whole data set, `(C,)`."""
    counts = torch.zeros(256)
    for i in shown(range(len(dataset)), "count classes", len(dataset), group):
        labels = dataset[i].labels
        if labels is not None:
            counts += torch.bincount(torch.from_numpy(labels).flatten().long(), minlength=256)
    return counts[: len(dataset.label_set.classes)]


def shown(items: Iterable[T], what: str, count: int, group: Processes) -> Iterable[T]:
    """`items` with their progress, which only the first process shows."""
    return track(items, what, count) if group.first else items
