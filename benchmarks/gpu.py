"""What an NVIDIA GPU shows that a CPU cannot: one command, no network; it begins nothing after --minutes.

Run: python -m benchmarks.gpu --out benchmarks/results/DEVICE [--data DATA] [--minutes 9] [--only SECTION ...]

It measures what this GPU can do (`ceilings`), whether TensorRT-RTX builds and runs here (`tensorrt_rtx`), every
operator's kernel beside its definition in PyTorch, eager and compiled (`kernels`), and networks at 1024x2048 in
PyTorch and ONNX Runtime (`networks`). gpu.json has every sample with its conditions, and what was left out and
why; README.md has the medians as tables. What takes long to compile is compiled by several processes before
anything is timed.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from roadseg import engines
from roadseg.calib import calibrate, quantize
from roadseg.engines.model import read_model
from roadseg.engines.network import Network
from roadseg.export import convert
from roadseg.export.ops import (
    CRISS_CROSS_ATTENTION,
    MAX_POOL_INDICES,
    MAX_UNPOOL,
    NON_LOCAL_ATTENTION,
    OPS,
    UPSAMPLE_ARGMAX,
    Op,
)
from roadseg.export.ops.costs import kernel_cost
from roadseg.runtime import EngineError, ModelSpec, Segmenter
from roadseg.runtime.backends.torch import FrameNet, Normalise
from roadseg.runtime.cuda import find_gpu
from roadseg.runtime.onnxfile import PRECISION_KEY, PROVENANCE_KEY, SPEC_KEY, save_onnx, set_metadata
from roadseg.runtime.pixels import fit
from roadseg.runtime.plan import FLAVOURS
from roadseg.train import MODELS, open_data
from roadseg.train.models import randomise

from .kernels import table

SIZE = (1024, 2048)
SAMPLES = 100
"""Of every latency."""
DEVICE = "cuda"
COLD_BYTES = 150e6
"""Arguments are changed from call to call until they fill this: three times the cache of an H100."""
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
EXACT = {"FramePreprocess", "MaxPoolIndices", "MaxUnpool2d", "PSAMask", "UpsampleArgmax"}
"""Operators whose kernels answer to the bit as their references do."""
PRECISIONS = ("fp32", "fp16", "int8")
NETWORKS = ("fastscnn", "bisenet_r18", "deeplabv3plus_r50", "galdnet_r50")
PACKAGES = ("torch", "triton", "tensorrt_rtx", "onnx", "onnxruntime", "numpy", "pycuda")
DATA_RATE, FP16_RATE, FP32_RATE = "copy GB/s", "FP16 product TFLOP/s", "FP32 product TFLOP/s"
Row = dict[str, Any]


class Study:
    """What has been measured so far; written after every row, so that nothing is lost when time runs out."""

    def __init__(self, out: Path, minutes: float, found: Row) -> None:
        self.out = out
        self.found = found
        self._deadline = time.monotonic() + 60 * minutes

    def attempt(self, section: str, what: str, measure: Callable[[], Row]) -> None:
        """Keep what `measure` gives as a row of a section, or say why there is none."""
        left = self._deadline - time.monotonic()
        print(f"{left:4.0f} s left: {what}", file=sys.stderr, flush=True)
        if left < 0:
            self.leave_out(what, "no time was left")
            return
        try:
            self.found.setdefault(section, []).append(measure())
        except Exception as error:  # whatever a library says of one row, the others are still worth having
            self.leave_out(what, f"{type(error).__name__}: {error}")
        torch.cuda.empty_cache()
        self.write()

    def leave_out(self, what: str, why: str) -> None:
        """Say what is missing, and why."""
        self.found.setdefault("left_out", []).append({"what": what, "why": " ".join(why.split())[:1000]})

    def write(self) -> None:
        """Write what there is."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "gpu.json").write_text(json.dumps(self.found, indent=1) + "\n")
        (self.out / "README.md").write_text(page(self.found))


def conditions(data: str) -> Row:
    """The machine and its software."""
    gpu = find_gpu()
    fields = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.limit,temperature.gpu"
    asked = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    said = asked.stdout.splitlines()[0].split(", ") if asked.returncode == 0 else []
    return {
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "driver_serves_cuda": gpu.driver,
        **dict(zip(fields.split(","), said, strict=False)),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "torch_built_for_cuda": torch.version.cuda,
        "cores": os.cpu_count(),
        "samples": SAMPLES,
        "size": list(SIZE),
        "data": data.partition(":")[0],
        "caches": f"arguments change from call to call until they fill {COLD_BYTES / 1e6:.0f} MB",
    }


def version(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def time_device(call: Callable[..., object], arguments: Sequence[Sequence[Any]]) -> Row:
    """Milliseconds of one call on the GPU, from events around a replayed CUDA graph of a call with each of them.

    Calls of more than a millisecond are made with the first alone. What cannot be captured is launched call by
    call.
    """
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for args in arguments[:2]:
            call(*args)
        if events(lambda: call(*arguments[0]), 1, stream, samples=1)[0] > 1:
            arguments = arguments[:1]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                for args in arguments:
                    call(*args)
            samples = events(graph.replay, len(arguments), stream)
            return {"launched": "CUDA graph", "calls_per_sample": len(arguments), "samples_ms": samples}
        except RuntimeError:
            torch.cuda.synchronize()
            samples = one_by_one(call, arguments, stream)
            return {"launched": "call by call", "calls_per_sample": 1, "samples_ms": samples}


def events(
    run: Callable[[], object], calls: int, stream: torch.cuda.Stream, samples: int = SAMPLES
) -> list[float]:
    """Milliseconds per call of runs of several calls each, after one that does not count."""
    run()
    found = []
    for _ in range(samples):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(stream)
        run()
        end.record(stream)
        end.synchronize()
        found.append(round(begin.elapsed_time(end) / calls, 6))
    return found


def one_by_one(
    call: Callable[..., object], arguments: Sequence[Sequence[Any]], stream: torch.cuda.Stream
) -> list[float]:
    """Milliseconds of calls with one set of arguments after the other."""
    turn = iter(range(10**9))
    return events(lambda: call(*arguments[next(turn) % len(arguments)]), 1, stream)


def median(row: Row) -> float:
    """Milliseconds."""
    return float(np.median(row["samples_ms"]))


def measure_ceilings() -> Row:
    """Rates that nothing on this GPU exceeds by much: of a large copy and of large matrix products."""
    block = torch.randn(2**28, device=DEVICE)
    copy = time_device(lambda x: x.clone(), [[block]])
    rates = {DATA_RATE: 2 * block.nbytes / median(copy) / 1e6}
    samples = {DATA_RATE: copy}
    del block
    for name, dtype, n in ((FP16_RATE, torch.float16, 8192), (FP32_RATE, torch.float32, 4096)):
        matrix = torch.randn(n, n, device=DEVICE, dtype=dtype)
        samples[name] = time_device(torch.mm, [[matrix, matrix]])
        rates[name] = 2 * n**3 / median(samples[name]) / 1e9
    return {"rates": rates, "samples": samples}


def arguments_of(op: Op, meta: Sequence[Any], device: str = DEVICE) -> list[Any]:
    """Random values of the given shapes, on the GPU unless somewhere else."""
    generator = torch.Generator(device).manual_seed(0)
    args = [value_for(x, generator) if isinstance(x, Tensor) else x for x in meta]
    if op is MAX_UNPOOL:
        pooled = torch.randn(*args[0].shape[:2], *args[2], generator=generator, device=device)
        args[1] = MAX_POOL_INDICES(pooled, *args[3:])
    return args


def value_for(x: Tensor, generator: torch.Generator) -> Tensor:
    """A tensor of the same shape and type."""
    if x.is_floating_point():
        return torch.randn(x.shape, generator=generator, device=generator.device).to(x.dtype)
    return torch.randint(256, x.shape, generator=generator, device=generator.device).to(x.dtype)


def cold(args: Sequence[Any]) -> list[list[Any]]:
    """The arguments again and again, each time elsewhere in memory."""
    size = sum(x.nbytes for x in args if isinstance(x, Tensor))
    count = max(1, min(64, math.ceil(COLD_BYTES / size)))
    return [[x.clone() if isinstance(x, Tensor) else x for x in args] for _ in range(count)]


def in_double(x: Any) -> Any:
    """A floating-point tensor in FP64; everything else as it is."""
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def distance(answer: Tensor, exact: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((answer.double() - exact.double()).abs().max() / exact.double().abs().max())


def cases() -> list[tuple[str, Op, str, tuple[Any, ...]]]:
    """Every operator at a full frame in both types; upsampling by other factors as well."""
    found = [(op.name, op, name, op.full_frame(dtype)) for op in OPS.values() for name, dtype in DTYPES.items()]
    for factor in (4, 2, 1):
        logits = torch.empty(1, 19, SIZE[0] // factor, SIZE[1] // factor, dtype=torch.float16, device="meta")
        found.append((f"UpsampleArgmax x{factor}", UPSAMPLE_ARGMAX, "fp16", (logits, [*SIZE], False)))
    return found


def measure_kernel(name: str, op: Op, dtype: str, meta: tuple[Any, ...], rates: Row) -> Row:
    """A kernel's error and time, beside what it cannot be faster than and what else computes the same."""
    args = arguments_of(op, meta)
    assert op.kernel is not None
    answer, reference = op.kernel(*args), op.reference(*args)
    row: Row = {"op": name, "dtype": dtype, "shapes": [list(x.shape) for x in args if isinstance(x, Tensor)]}
    if op.name in EXACT:
        row["same_to_the_bit"] = bool(torch.equal(answer, reference))
    else:
        exact = op.reference(*map(in_double, args))
        row |= {"error": distance(answer, exact), "error_of_reference": distance(reference, exact)}
        del exact
    del answer, reference
    sets = cold(args)
    row["kernel"] = time_device(op.kernel, sets)
    row["moved_bytes"] = kernel_cost(op, meta).moved_bytes
    row["flop"] = count_flop(op, meta)
    limits_ms = {
        DATA_RATE: row["moved_bytes"] / rates[DATA_RATE] / 1e6,
        FP16_RATE if dtype == "fp16" else FP32_RATE: row["flop"]
        / rates[FP16_RATE if dtype == "fp16" else FP32_RATE]
        / 1e9,
    }
    row["limited_by"] = max(limits_ms, key=lambda limit: limits_ms[limit])
    row["fraction_of_limit"] = limits_ms[row["limited_by"]] / median(row["kernel"])
    for peer, call in peers(op, dtype).items():
        try:
            row[peer] = time_device(call, sets)
        except Exception as error:  # of a peer; the kernel's own row stands
            row[peer] = {"failed": " ".join(str(error).split())[:300]}
        torch.cuda.empty_cache()
    return row


def count_flop(op: Op, meta: tuple[Any, ...]) -> int:
    """Of the matrix products in the definition; 0 where it has none."""
    with FlopCounterMode(display=False) as counter:
        op.reference(*meta)
    return int(counter.get_total_flops())


def peers(op: Op, dtype: str) -> dict[str, Callable[..., Tensor]]:
    """What else computes an operator on a GPU; FP32 is compiled only where a bar asks for it."""
    found: dict[str, Callable[..., Tensor]] = {"eager": op.reference}
    if dtype == "fp16" or op in (CRISS_CROSS_ATTENTION, UPSAMPLE_ARGMAX):
        found["compiled"] = torch.compile(op.reference, dynamic=False)
    return found | {"sdpa": attend} if op is NON_LOCAL_ATTENTION else found


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """PyTorch's own attention on the same maps."""
    q, k, v = (x.flatten(2).transpose(1, 2)[:, None] for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, scale=scale)[:, 0].transpose(1, 2).reshape(value.shape)


def network(name: str, data: str) -> tuple[FrameNet, ModelSpec, npt.NDArray[np.uint8]]:
    """A network with random weights whose batch norms know the frames, its spec, and a frame `(1, H, W, 3)`."""
    torch.manual_seed(0)
    size = MODELS[name].sizes.nearest(SIZE)
    net = MODELS[name]().eval()
    spec = ModelSpec(name, *size, align_corners=bool(getattr(net, "align_corners", False)))
    frames = np.stack([fit(sample.frame, spec) for sample in islice(open_data(data, "val"), 2)])
    images = Normalise(spec)(torch.from_numpy(frames))
    randomise(net, F.interpolate(images, MODELS[name].sizes.nearest((256, 512)), mode="bilinear"))
    return FrameNet(net, spec), spec, frames[:1]


def on_gpu(model: FrameNet, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Frames to labels on the GPU: the network in `dtype`, the logits in it as well."""
    model = model.to(DEVICE, memory_format=torch.channels_last)
    if dtype == torch.float32:
        return model
    model.logits.net.half()

    def answer(frames: Tensor) -> Tensor:
        images = model.normalise(frames).half().contiguous(memory_format=torch.channels_last)
        labels: Tensor = model.logits(images).argmax(dim=1).to(torch.uint8)
        return labels

    return answer


@torch.inference_mode()
def measure_network(name: str, data: str, dtype: str, *, compiled: bool) -> Row:
    """A network in PyTorch, from frame to labels: alone on the GPU, and from the host's memory and back."""
    model, spec, frames = network(name, data)
    reference = on_gpu(model, torch.float32)(torch.from_numpy(frames).to(DEVICE)).cpu()
    call = on_gpu(model, DTYPES[dtype])
    if compiled:
        call = torch.compile(call, dynamic=False)
    host = torch.from_numpy(frames).pin_memory()
    labels = torch.empty(1, *spec.size, dtype=torch.uint8, pin_memory=True)
    device = host.to(DEVICE)

    def from_host() -> None:
        device.copy_(host, non_blocking=True)
        labels.copy_(call(device), non_blocking=True)
        torch.cuda.current_stream().synchronize()

    from_host()
    row = {
        "network": name,
        "size": list(spec.size),
        "dtype": dtype,
        "by": "torch.compile" if compiled else "PyTorch eager",
        "agreement_with_fp32": float((labels == reference).float().mean()),
        "call_by_call": {"samples_ms": plain(call, device)},
        "host_to_host": {"samples_ms": clock(from_host)},
    }
    return row | {"graph": time_device(call, [[device]])}


def plain(call: Callable[[Tensor], Tensor], device: Tensor) -> list[float]:
    """Milliseconds of calls that the host launches kernel by kernel."""
    stream = torch.cuda.current_stream()
    for _ in range(5):
        call(device)
    return events(lambda: call(device), 1, stream)


def clock(run: Callable[[], object]) -> list[float]:
    """Milliseconds by the host's clock."""
    samples = []
    for _ in range(SAMPLES + 5):
        begun = time.perf_counter()
        run()
        samples.append(round(1000 * (time.perf_counter() - begun), 6))
    return samples[5:]


def measure_tensorrt_rtx(name: str, data: str, precision: str, target: str | None) -> Row:
    """Whether an engine can be built here and opened, with TensorRT-RTX's own words where it cannot.

    Args:
        name: of the network.
        data: of the frames.
        precision: of the model.
        target: member of TensorRT-RTX's ComputeCapability; None builds for all it can.
    """
    import tensorrt_rtx

    row: Row = {"network": name, "precision": precision, "built_for": target or "any since 8.0"}
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "model.onnx"
        onnx_file.write_bytes(typed_model(name, data, precision))
        builder = Network(tensorrt_rtx, FLAVOURS["rtx"], read_model(onnx_file))
        if target:
            builder.config.num_compute_capabilities = 1
            builder.config.set_compute_capability(tensorrt_rtx.ComputeCapability.__members__[target], 0)
        begun = time.perf_counter()
        plan = builder.builder.build_serialized_network(builder.network, builder.config)
        row |= {"build_s": time.perf_counter() - begun, "plan_bytes": len(bytes(plan)) if plan else 0}
        runtime = tensorrt_rtx.Runtime(builder.logger)
        row["opened"] = bool(plan) and runtime.deserialize_cuda_engine(bytes(plan)) is not None
        row["said"] = builder.logger.take()
        if row["opened"]:
            compute_capability = {"CURRENT": find_gpu().compute_capability, "SM80": "8.0"}.get(target or "")
            file = onnx_file.with_suffix(".plan")
            engines.build(onnx_file, file, flavour="rtx", compute_capability=compute_capability)
            row |= measure_segmenter(Segmenter.open(file), name, data)
    return row


def measure_onnxruntime(name: str, data: str, precision: str) -> Row:
    """A model in ONNX Runtime on the GPU.

    Raises:
        EngineError: if ONNX Runtime's build has no CUDA.
    """
    import onnxruntime

    offered = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in offered:
        raise EngineError(f"onnxruntime {onnxruntime.__version__} offers {', '.join(offered)} here.")
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "model.onnx"
        onnx_file.write_bytes(typed_model(name, data, precision))
        segmenter = Segmenter.open(onnx_file)
        if "CUDA" not in segmenter.backend.name:
            raise EngineError(f"onnxruntime {onnxruntime.__version__} offers CUDA and falls back to the CPU here.")
        found = measure_segmenter(segmenter, name, data)
    return {"network": name, "precision": precision, "by": segmenter.backend.name} | found


def measure_segmenter(segmenter: Segmenter, name: str, data: str) -> Row:
    """Latency from host to host, and the share of labels that are those of PyTorch in FP32."""
    model, _, frames = network(name, data)
    with torch.inference_mode():
        reference = on_gpu(model, torch.float32)(torch.from_numpy(frames).to(DEVICE)).cpu().numpy()
    return {
        "agreement_with_fp32": float((segmenter.segment_batch(frames) == reference).mean()),
        "host_to_host": {"samples_ms": clock(lambda: segmenter.segment_batch(frames))},
    }


@functools.cache
def typed_model(name: str, data: str, precision: str) -> bytes:
    """The ONNX model of a network, without comparing it with PyTorch; INT8 has the ranges of two frames."""
    model, spec, _ = network(name, data)
    proto = convert(model.logits.net, spec, 1)
    set_metadata(proto, {SPEC_KEY: spec.to_json(), PROVENANCE_KEY: "{}", PRECISION_KEY: "fp32"})
    with tempfile.TemporaryDirectory() as folder:
        path, typed, ranges = (Path(folder) / file for file in ("model.onnx", "typed.onnx", "model.ranges"))
        save_onnx(path, proto)
        if precision == "fp16":
            quantize(path, "fp16", out=typed)
        if precision == "int8":
            calibrate(path, open_data(data, "val"), out=ranges, count=2, method="minmax", force=True)
            quantize(path, "int8", out=typed, ranges=ranges)
        return (path if precision == "fp32" else typed).read_bytes()


def compile_apart(processes: int, data: str) -> None:
    """Fill the compilers' caches from several processes; what they say is of no interest."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", "-", "--data", data, "--compile"]
    running = [
        subprocess.Popen([*command, f"{i}/{processes}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for i in range(processes)
    ]
    for process in running:
        process.wait()


def compile_part(part: int, parts: int, data: str) -> None:
    """Compile every `parts`-th of what will be timed."""
    jobs: list[Callable[[], object]] = [
        functools.partial(answer_once, name, data, compiled=compiled)
        for name in NETWORKS
        for compiled in (True, False)
    ]
    for _, op, dtype, meta in cases():
        calls = [op.kernel, *(call for peer, call in peers(op, dtype).items() if peer == "compiled")]
        jobs += [functools.partial(call_once, call, op, meta) for call in calls]
    for job in jobs[part::parts]:
        quietly(job)


def quietly(job: Callable[[], object]) -> None:
    """Do it, and if it fails leave that to be met again where it counts."""
    try:
        job()
    except Exception as error:
        print(error, file=sys.stderr)


def call_once(call: Callable[..., object], op: Op, meta: Sequence[Any]) -> None:
    """Call what computes an operator."""
    call(*arguments_of(op, meta))


@torch.inference_mode()
def answer_once(name: str, data: str, *, compiled: bool) -> None:
    """Run a network, which compiles it and lets libraries choose their kernels."""
    model, _, frames = network(name, data)
    call = on_gpu(model, torch.float16)
    (torch.compile(call, dynamic=False) if compiled else call)(torch.from_numpy(frames).to(DEVICE))


def page(found: Row) -> str:
    """What was found, as tables."""
    about = found["conditions"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number)
    parts = [
        f"# {about['gpu']}",
        "Made by `python -m benchmarks.gpu`. Medians; gpu.json beside this page has every sample.",
        f"Compute capability {about['compute_capability']}, driver {about.get('driver_version', 'unknown')}, "
        f"multiprocessors at up to {about.get('clocks.max.sm', '?')}, {versions}.",
    ]
    for row in found.get("ceilings", []):
        rates = row["rates"]
        parts.append(
            f"A copy of 1 GiB moves {rates[DATA_RATE]:.0f} GB/s, read and written; products of large matrices "
            f"reach {rates[FP16_RATE]:.0f} TFLOP/s in FP16 and {rates[FP32_RATE]:.1f} in FP32."
        )
    parts += [
        text
        for section in (rtx_table, kernel_table, network_table, onnxruntime_table, left_out_table)
        if (text := section(found))
    ]
    return "\n\n".join(parts) + "\n"


def rtx_table(found: Row) -> str:
    """Whether TensorRT-RTX builds and runs."""
    rows = [
        (
            f"{row['network']} {row['precision']}",
            row["built_for"],
            f"{row['build_s']:.2f}",
            f"{row['plan_bytes'] / 1e6:.1f}",
            rtx_answer(row),
        )
        for row in found.get("tensorrt_rtx", [])
    ]
    heads = ("network", "built for", "build s", "plan MB", "TensorRT-RTX's answer")
    return "## TensorRT-RTX\n\n" + table(heads, rows) if rows else ""


def rtx_answer(row: Row) -> str:
    """What became of an engine when it was opened."""
    if row["opened"]:
        return f"opened; {percentiles(row['host_to_host'])} ms from host to host"
    return "refused: " + " ".join(row["said"]).replace("|", "/")


def kernel_table(found: Row) -> str:
    """Kernels, their limits and their peers."""
    rows = [kernel_line(row) for row in found.get("kernels", [])]
    heads = (
        "operator", "type", "error", "reference's error", "us", "limit", "fraction of it", "eager us",
        "compiled us", "sdpa us",
    )  # fmt: skip
    about = (
        "One call at a full frame. The error is relative to the largest value, against the definition in FP64. "
        "The limit is moving every input and the answer once, or multiplying the matrices of the definition, at "
        "the rates above, whichever takes longer. Eager and compiled are the definition in PyTorch, sdpa is "
        "`scaled_dot_product_attention`."
    )
    return f"## Kernels\n\n{about}\n\n{table(heads, rows)}" if rows else ""


def kernel_line(row: Row) -> tuple[str, ...]:
    """A row of the kernels' table."""
    error, own = (f"{row[key]:.1e}" if key in row else "" for key in ("error", "error_of_reference"))
    if "same_to_the_bit" in row:
        error = "none" if row["same_to_the_bit"] else "**not the same**"
    times = (microseconds(row.get(peer)) for peer in ("eager", "compiled", "sdpa"))
    limit = row["limited_by"].rpartition(" ")[0]
    own_time = microseconds(row["kernel"])
    return (row["op"], row["dtype"], error, own, own_time, limit, f"{row['fraction_of_limit']:.2f}", *times)


def microseconds(timed: Row | None) -> str:
    """The median, to three digits; what was launched call by call has a star."""
    if timed is None:
        return ""
    if "failed" in timed:
        return "failed"
    star = "" if timed["launched"] == "CUDA graph" else "*"
    return f"{float(f'{1000 * median(timed):.3g}'):g}{star}"


def network_table(found: Row) -> str:
    """Networks in PyTorch."""
    rows = [
        (
            row["network"],
            "x".join(map(str, row["size"])),
            f"{row['by']} {row['dtype']}",
            *(percentiles(row[key]) for key in ("call_by_call", "graph", "host_to_host")),
            f"{row['agreement_with_fp32']:.5f}",
        )
        for row in found.get("networks", [])
    ]
    heads = ("network", "size", "by", "GPU ms", "GPU ms, CUDA graph", "host to host ms", "agreement with FP32")
    about = "Frames in, labels out, batch 1, channels last: median and 99th percentile."
    return f"## Networks in PyTorch\n\n{about}\n\n{table(heads, rows)}" if rows else ""


def onnxruntime_table(found: Row) -> str:
    """Networks in ONNX Runtime."""
    rows = [
        (row["network"], row["by"], percentiles(row["host_to_host"]), f"{row['agreement_with_fp32']:.5f}")
        for row in found.get("onnxruntime", [])
    ]
    heads = ("network", "by", "host to host ms", "agreement with PyTorch FP32")
    return "## Networks in ONNX Runtime\n\n" + table(heads, rows) if rows else ""


def percentiles(timed: Row) -> str:
    """Median and 99th percentile."""
    return " / ".join(f"{np.percentile(timed['samples_ms'], share):.2f}" for share in (50, 99))


def left_out_table(found: Row) -> str:
    """What is missing."""
    rows = [(row["what"], row["why"].replace("|", "/")) for row in found.get("left_out", [])]
    return "## Left out\n\n" + table(("what", "why"), rows) if rows else ""


def run(study: Study, data: str, only: Sequence[str]) -> None:
    """Measure everything, the most telling first."""
    attempt = study.attempt
    if "tensorrt_rtx" in only:
        run_tensorrt_rtx(study, data)
    attempt("ceilings", "ceilings", measure_ceilings)
    rates = study.found["ceilings"][0]["rates"]
    if "kernels" in only:
        for case in cases():
            what = f"kernel {case[0]} {case[2]}"
            attempt("kernels", what, functools.partial(measure_kernel, *case, rates))
    if "networks" in only:
        for name, (dtype, compiled) in itertools.product(
            NETWORKS, (("fp16", True), ("fp16", False), ("fp32", False))
        ):
            what = f"{name} in PyTorch, {dtype}{', compiled' if compiled else ''}"
            attempt("networks", what, functools.partial(measure_network, name, data, dtype, compiled=compiled))
        for name, precision in itertools.product(NETWORKS, PRECISIONS):
            what = f"{name} in ONNX Runtime on CUDA, {precision}"
            attempt("onnxruntime", what, functools.partial(measure_onnxruntime, name, data, precision))


def run_tensorrt_rtx(study: Study, data: str) -> None:
    """Build for this GPU, for another and for all; where one of these engines opens, build every network."""
    first = NETWORKS[0]
    for target in ("CURRENT", "SM80", None):
        what = f"TensorRT-RTX, {first} fp16, for {target}"
        measure = functools.partial(measure_tensorrt_rtx, first, data, "fp16", target)
        study.attempt("tensorrt_rtx", what, measure)
    others = [case for case in itertools.product(NETWORKS, PRECISIONS) if case != (first, "fp16")]
    for name, precision in others:
        what = f"TensorRT-RTX, {name} {precision}"
        if not any(row["opened"] for row in study.found.get("tensorrt_rtx", [])):
            study.leave_out(what, "no engine opens here")
            continue
        measure = functools.partial(measure_tensorrt_rtx, name, data, precision, "CURRENT")
        study.attempt("tensorrt_rtx", what, measure)


def main() -> int:
    """Measure and write; returns 1 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sections = ("tensorrt_rtx", "kernels", "networks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="scenes:count=2")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--only", nargs="*", choices=sections, default=sections)
    parser.add_argument("--compile", metavar="I/N", help="compile a part of everything, and time nothing")
    arguments = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    if arguments.compile:
        compile_part(*map(int, arguments.compile.split("/")), arguments.data)
        return 0
    try:
        about = conditions(arguments.data)
    except EngineError as error:
        print(f"{error}; this needs one.", file=sys.stderr)
        return 1
    study = Study(arguments.out, arguments.minutes, {"conditions": about})
    compile_apart(min(12, os.cpu_count() or 1), arguments.data)
    run(study, arguments.data, arguments.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
