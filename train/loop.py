"""The training loop: resumable at every epoch, and bit-identical on the CPU whether interrupted or not."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor, nn

from roadseg.runtime import (
    ArtifactError,
    Dataset,
    ModelSpec,
    Segmenter,
    Size,
    evaluate,
    sha256_bytes,
    track,
    write_atomically,
)
from roadseg.runtime.backends.torch import Normalise, TorchBackend

from .batches import AugmentedSamples, Batch, EpochBatches, load_batches
from .checkpoint import Checkpoint, save_checkpoint
from .losses import log_class_weights
from .models import build
from .recipe import Recipe

log = logging.getLogger(__name__)


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
) -> Checkpoint:
    """Train a network and write its checkpoint to `out`.

    After every epoch the whole state is written beside it (`<out>.state`), and removed at the end. Under
    torchrun each process takes its share of every batch.

    Args:
        run: network, size, recipe and seed.
        dataset: frames with labels.
        out: where the checkpoint goes, a `.safetensors` file.
        val: measured every `val_every` epochs and after the last one.
        val_every: in epochs.
        workers: processes that decode and augment, per training process.
        keep: hold samples in memory once read; for data sets that are slow to read and small.
        resume: go on from `<out>.state` where there is one of the same run.

    Raises:
        DataError: if a frame has no labels, or cannot be read.
        ArtifactError: if the state found belongs to another run.
    """
    group = join_processes()
    session = Session.start(run, dataset, group)
    state_path = out.with_name(out.name + ".state")
    if resume and state_path.is_file():
        session.load(state_path)
    loader = load_batches(
        AugmentedSamples(dataset, run.recipe.augmentation, run.seed, keep), session.batches, workers
    )
    for epoch in range(session.epoch, run.recipe.epochs):
        loss = session.train_epoch(epoch, loader)
        log.info("epoch %d of %d: loss %.4f", epoch + 1, run.recipe.epochs, loss)
        if group.rank == 0:
            write_atomically(state_path, session.dump())
            if val is not None and (epoch + 1) % val_every == 0 and epoch + 1 < run.recipe.epochs:
                log.info("epoch %d: mIoU %.2f", epoch + 1, 100 * session.miou(val))
    checkpoint = session.checkpoint(dataset, val)
    if group.rank == 0:
        save_checkpoint(out, checkpoint)
        state_path.unlink(missing_ok=True)
    return checkpoint


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process's place among those of torchrun."""

    rank: int
    world: int
    device: torch.device


def join_processes() -> Processes:
    """Join torchrun's processes, or be the only one; each takes the GPU of its local rank if there is one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return Processes(int(os.environ.get("RANK", "0")), world, device)


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
        self.class_weights = class_weights if class_weights is None else class_weights.to(group.device)
        self.parallel = distribute(self.net, group)
        self.normalise = Normalise(spec).to(group.device)
        self.optimizer = make_optimizer(self.net, run.recipe)
        steps = run.recipe.epochs * len(batches)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, poly_schedule(run.recipe, steps))
        self.scaler = torch.amp.GradScaler(enabled=group.device.type == "cuda")
        self.epoch = 0

    @classmethod
    def start(cls, run: Run, dataset: Dataset, group: Processes) -> Session:
        """A session before its first step."""
        torch.manual_seed(run.seed)
        net = build(run.net, len(dataset.label_set.classes), aux=True)
        spec = run.spec(dataset, align_corners=bool(getattr(net, "align_corners", False)))
        batches = EpochBatches(len(dataset), run.recipe.batch, run.seed, group.rank, group.world)
        weights = class_weights(dataset) if run.recipe.class_weights == "log" else None
        return cls(run, net, spec, batches, weights, dataset.name.partition(":")[0], group)

    def train_epoch(self, epoch: int, loader: Any) -> float:
        """Every batch once; returns the mean loss."""
        torch.manual_seed(self.run.seed * 1_000_003 + epoch)  # dropout: the same however often it was resumed
        self.batches.epoch = epoch
        self.parallel.train()
        total = 0.0
        for batch in track(loader, f"epoch {epoch + 1}", len(self.batches)):
            total += self._step(batch)
        self.epoch = epoch + 1
        return total / len(self.batches)

    def _step(self, batch: Batch) -> float:
        frames, labels = (tensor.to(self.group.device, non_blocking=True) for tensor in batch)
        images = self.normalise(frames).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.group.device.type, enabled=self.scaler.is_enabled()):
            outputs = self.parallel(images)
        outputs = [logits.float() for logits in (outputs if isinstance(outputs, list) else [outputs])]
        loss = self.run.recipe.loss(outputs, labels, self.class_weights, self.spec.align_corners)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self._average()
        return float(loss.detach())

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
        self.epoch = state["epoch"]
        log.info("going on from epoch %d", self.epoch)

    def _identity(self) -> str:
        return sha256_bytes(msgspec.json.encode((self.run, self.data, self.batches.length)))


def distribute(net: nn.Module, group: Processes) -> nn.Module:
    """The network, shared with the other processes where there are any; batch norms then count all of them."""
    if group.world == 1:
        return net
    if group.device.type == "cuda":
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    return nn.parallel.DistributedDataParallel(
        net, device_ids=[group.device.index] if group.device.type == "cuda" else None
    )


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW; batch norms and biases are not decayed."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.rate)
    return torch.optim.SGD(groups, lr=recipe.rate, momentum=0.9, nesterov=True)


def poly_schedule(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """Factor of the rate at each step: a linear rise, then (1 - progress) ** power."""
    rise = max(1, round(recipe.warmup * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return float((1 - (step - rise) / max(1, steps - rise)) ** recipe.power) if step < steps else 0.0

    return factor


def class_weights(dataset: Dataset) -> Tensor:
    """Weights that let rare classes count, from the labels of the whole data set."""
    counts = torch.zeros(256)
    for i in track(range(len(dataset)), "count classes"):
        labels = dataset[i].labels
        if labels is not None:
            counts += torch.bincount(torch.from_numpy(labels).flatten().long(), minlength=256)
    return log_class_weights(counts[: len(dataset.label_set.classes)])
