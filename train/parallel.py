"""Several processes that train as one: what they add up, and batch norms that count everybody's frames."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

PATIENCE = datetime.timedelta(hours=1)
"""How long processes wait for the first one, which alone evaluates; torchrun itself notices one that died."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process's place among those of torchrun."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes, evaluates and speaks."""
        return self.rank == 0


@contextlib.contextmanager
def join_processes() -> Iterator[Processes]:
    """Join torchrun's processes for a while, or be the only one; each takes the GPU of its local rank if any."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    joins = world > 1 and not dist.is_initialized()
    if joins:
        _join("nccl" if cuda else "gloo")
    try:
        yield Processes(
            int(os.environ.get("RANK", "0")), world, torch.device("cuda", local) if cuda else torch.device("cpu")
        )
    finally:
        if joins:
            dist.destroy_process_group()


def _join(backend: str) -> None:
    store, rank, world = next(iter(rendezvous("env://", timeout=PATIENCE)))
    # torchrun keeps its store when it starts the processes again, and in it the addresses of those that died.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    fresh = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=world, timeout=PATIENCE)


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(x: Tensor) -> Tensor:
    """The sum of every process's `x`, without a gradient."""
    x = x.detach()
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def _sum(x: Tensor) -> Tensor:
    """The sum of every process's `x`, with its gradient."""
    y: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return y


class _Sum(torch.autograd.Function):
    """The sum over processes; as every process's result depends on every `x`, the gradients are summed too."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return total(x)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return total(gradient)


def pooled_mean(amount: Tensor, weight: Tensor) -> Tensor:
    """Every process's `amount` over every process's `weight`, scalars both; zero where there is no weight.

    The processes' shares average to it: that is what DistributedDataParallel does to their gradients, so the
    gradient is the one of a single process with all the frames, however the weight is spread.
    """
    return amount * world_size() / total(weight).clamp(min=torch.finfo(amount.dtype).tiny)


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest, a scalar, among the 1-D `values` of all processes together."""
    if world_size() == 1:
        return torch.topk(values, k).values[-1]
    own = torch.topk(values, min(k, len(values))).values
    own = F.pad(own, (0, k - len(own)), value=float("-inf"))
    everybody = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(everybody, own)
    return torch.topk(torch.cat(everybody), k).values[-1]


class PooledBatchNorm(_BatchNorm):
    """Batch norm over the frames of all processes.

    What `nn.SyncBatchNorm` does on GPUs; that one refuses tensors on the CPU.
    """

    def _check_input_dim(self, _: Tensor) -> None:
        """Takes `(N, C, ...)` of any number of axes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        count = total(torch.tensor(x.numel() / x.shape[1], device=x.device))
        mean = _sum(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        y: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        return y * self.weight.view(shape) + self.bias.view(shape) if self.affine else y

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def pool_batch_norms(net: nn.Module) -> nn.Module:
    """Let the batch norms of `net` count the frames of all processes."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            # Not another module in its place: a network may hold one under several names.
            module.__class__ = PooledBatchNorm
    return net


def distribute(net: nn.Module, group: Processes) -> nn.Module:
    """The network, shared with the other processes where there are any; batch norms then count all of them."""
    if group.world == 1:
        return net
    cuda = group.device.type == "cuda"
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net) if cuda else pool_batch_norms(net)  # type: ignore[no-untyped-call]
    return nn.parallel.DistributedDataParallel(net, device_ids=[group.device.index] if cuda else None)


def apart(net: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Within it, gradients of what `distribute` gave stay in their process and add up."""
    if isinstance(net, nn.parallel.DistributedDataParallel):
        quiet: contextlib.AbstractContextManager[None] = net.no_sync()
        return quiet
    return contextlib.nullcontext()
