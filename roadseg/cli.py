"""The command `roadseg`: parse, call one public function, print what it returned.

JSON goes to standard output alone, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage,
3 parity beyond budget.
"""

from __future__ import annotations

import enum
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from roadseg import __version__
from roadseg.runtime import RoadsegError, Size, parse_size

app = typer.Typer(
    help="From a PyTorch road-scene segmentation network to a checked TensorRT engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
log = logging.getLogger(__name__)
console = Console(stderr=True, highlight=False, soft_wrap=True)


class Io(str, enum.Enum):
    """What a model takes and returns."""

    frame = "frame"
    tensor = "tensor"


class Precision(str, enum.Enum):
    """Of a typed graph."""

    fp16 = "fp16"
    int8 = "int8"


class Rest(str, enum.Enum):
    """Of what is not INT8 in an INT8 model."""

    fp16 = "fp16"
    fp32 = "fp32"


class Flavour(str, enum.Enum):
    """Which TensorRT builds."""

    auto = "auto"
    tensorrt = "tensorrt"
    rtx = "rtx"


class Plugins(str, enum.Enum):
    """Whether custom operators become plugins."""

    auto = "auto"
    require = "require"
    never = "never"


Exported = Annotated[Path, typer.Argument(help="FP32 ONNX model, as `roadseg export` writes it.")]
Original = Annotated[Path, typer.Argument(help="The FP32 model that the INT8 one was made from.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Data = Annotated[str, typer.Option(help="kind:path with kind cityscapes, camvid, folder, scenes or video.")]
Split = Annotated[str, typer.Option(help="Split of the data set.")]
Out = Annotated[Path, typer.Option(help="File to write.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]
Force = Annotated[bool, typer.Option(help="Allow images of a validation split.")]
MaybeSize = Annotated[str | None, typer.Option(help="Rows x columns, e.g. 360x480.")]


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """From a PyTorch road-scene segmentation network to a checked TensorRT engine."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("roadseg").setLevel(logging.INFO)


@app.command()
def train(
    net: Annotated[str, typer.Option(help="Key of roadseg.train.MODELS.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Checkpoint to write, .safetensors.")],
    size: Annotated[str, typer.Option(help="Rows x columns of the model, e.g. 360x480.")],
    val_split: Annotated[str, typer.Option(help="Split to measure; empty for none.")] = "val",
    split: Split = "train",
    recipe: Annotated[Path | None, typer.Option(help="TOML file with fields of Recipe to change.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="In place of the recipe's.")] = None,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read frames.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to torch.")] = 0,
    keep: Annotated[bool, typer.Option(help="Hold frames in memory once read or generated.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from where the same run was interrupted.")] = True,
    json: Json = False,
) -> None:
    """Train a network; the whole state is kept after every epoch. Under torchrun, processes share every batch."""
    from roadseg.train import Run, open_data, recipe_for
    from roadseg.train import train as fit

    if threads:
        import torch

        torch.set_num_threads(threads)
    run = Run(net, parse_size(size), recipe_for(net, recipe, epochs), seed)
    val = open_data(data, val_split) if val_split else None
    checkpoint = fit(run, open_data(data, split), out, val=val, workers=workers, keep=keep, resume=resume)
    if os.environ.get("RANK", "0") == "0":  # torchrun's other processes have nothing to add
        emit({"out": out, **checkpoint.provenance}, json)


@app.command("import")
def import_(
    net: Annotated[str, typer.Option(help="Key of roadseg.train.MODELS.")],
    source: Annotated[Path, typer.Option("--from", help="The authors' checkpoint, in its own envelope.")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write, .safetensors.")],
    size: Annotated[str, typer.Option(help="Rows x columns of the model; the nearest legal size.")] = "1024x2048",
    repository: Annotated[str, typer.Option(help="owner/name, where several repositories fit.")] = "",
    strict: Annotated[bool, typer.Option(help="Refuse a file whose keys do not all match.")] = True,
    json: Json = False,
) -> None:
    """Turn a checkpoint that a network's authors published into ours; every key of theirs is accounted for."""
    from roadseg.importing import import_file

    report = import_file(net, source, out, size=parse_size(size), repository=repository, strict=strict)
    emit(report if json else report.summary(), json)
    report.raise_for_refusal()


@app.command()
def models(
    names: Annotated[list[str] | None, typer.Argument(help="Tell all that is known of these.")] = None,
    json: Json = False,
) -> None:
    """List the networks: paper, size, cost, published mIoU, and how far each is known to go."""
    from roadseg.zoo import list_networks, table

    networks = list_networks(names or ())
    if json:
        emit(networks, json)
    elif names:
        for network in networks:
            emit(network, json)
    else:
        console.print(table(networks))


@app.command()
def export(
    net: Annotated[str, typer.Option(help="Key of roadseg.train.MODELS, or package.module:factory.")],
    weights: Annotated[str, typer.Option(help="Checkpoint file, or the name of one that ships: camvid, scenes.")],
    out: Out,
    size: MaybeSize = None,
    spec: Annotated[
        Path | None, typer.Option(help="TOML file with the ModelSpec, for weights without one.")
    ] = None,
    io: Annotated[Io, typer.Option(help="Camera frames to labels, or normalised tensors to logits.")] = Io.frame,
    batch: Annotated[int, typer.Option(min=0, help="Frames per call; 0 leaves it open.")] = 1,
    fuse_tail: Annotated[
        bool,
        typer.Option(
            "--fuse-tail", help="Upsampling and argmax as one operator, a single kernel in TensorRT from 10 on."
        ),
    ] = False,
    data: Annotated[str | None, typer.Option(help="Compare with PyTorch on frames of this data set.")] = None,
    split: Split = "val",
    json: Json = False,
) -> None:
    """Export a network to ONNX and check it against PyTorch."""
    from roadseg.exporting import export_network

    report = export_network(
        net,
        weights,
        out,
        size=parse_size(size) if size else None,
        spec_file=spec,
        io=io.value,
        batch=batch or None,
        fuse_tail=fuse_tail,
        data=data,
        split=split,
    )
    emit(report, json)


@app.command()
def equalise(
    model: Exported,
    data: Data,
    out: Out,
    split: Split = "train",
    count: Annotated[int, typer.Option(min=1, help="Images to take.")] = 64,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write an ONNX model with the same answers that loses less as INT8; calibrate that one, by minmax."""
    from roadseg import calib
    from roadseg.train import open_data

    emit(calib.equalise(model, open_data(data, split), out=out, count=count, seed=seed, force=force), json)


@app.command()
def calibrate(
    model: Exported,
    data: Data,
    out: Out,
    split: Split = "train",
    count: Annotated[int, typer.Option(min=1, help="Images to take.")] = 64,
    method: Annotated[
        str,
        typer.Option(
            help="entropy, minmax, moving_average, mse, percentile; of several, with commas, a file for each."
        ),
    ] = "entropy",
    seed: Seed = 0,
    force: Force = False,
    check_colours: Annotated[
        bool, typer.Option(help="Refuse frames on which the network is surer with red and blue swapped.")
    ] = True,
    json: Json = False,
) -> None:
    """Collect the ranges of an ONNX model's tensors on calibration images."""
    from roadseg import calib
    from roadseg.train import open_data

    outs = calib.files_by_method(out, calib.parse_methods(method))
    reports = calib.calibrate_each(
        model,
        open_data(data, split),
        outs,
        count=count,
        seed=seed,
        force=force,
        check_colours=check_colours,
    )
    emit(reports if len(reports) > 1 else next(iter(reports.values())), json)


@app.command()
def choose_ranges(
    model: Exported,
    ranges: Annotated[list[Path], typer.Argument(help="What `roadseg calibrate` wrote, by several methods.")],
    data: Data,
    out: Out,
    split: Split = "train",
    count: Annotated[int, typer.Option(min=1, help="Images to measure on.")] = 8,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write ranges that are for each tensor those of the method which changes a model's answers least."""
    from roadseg import calib
    from roadseg.train import open_data

    dataset = open_data(data, split)
    emit(calib.choose_ranges(model, ranges, dataset, out=out, count=count, seed=seed, force=force), json)


@app.command()
def import_ranges(
    model: Exported,
    cache: Annotated[Path, typer.Argument(help="Calibration cache of TensorRT or ModelOpt.")],
    data: Data,
    out: Out,
    split: Split = "train",
    count: Annotated[int, typer.Option(min=1, help="Frames to check it on.")] = 64,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make another program's calibration cache the ranges of an ONNX model, once frames show that it fits."""
    from roadseg import calib
    from roadseg.train import open_data

    dataset = open_data(data, split)
    emit(calib.import_ranges(model, cache, dataset, out=out, count=count, seed=seed, force=force), json)


@app.command()
def check_ranges(
    model: Exported,
    ranges: Annotated[Path, typer.Argument(help="What `roadseg calibrate` wrote for it.")],
    data: Data,
    split: Split = "train",
    count: Annotated[int, typer.Option(min=1, help="Frames to take.")] = 16,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Run an ONNX model on frames, and stop if a tensor's range is far from what it does there."""
    from roadseg import calib
    from roadseg.train import open_data

    check = calib.check_ranges(model, ranges, open_data(data, split), count=count, seed=seed, force=force)
    emit(check if json else check.summary(), json)


@app.command()
def quantize(
    model: Exported,
    precision: Annotated[Precision, typer.Option(help="fp16 needs no ranges.")],
    out: Out,
    ranges: Annotated[
        list[Path] | None,
        typer.Option(
            help="What `roadseg calibrate` wrote; a --budget takes several to choose from, or makes them itself."
        ),
    ] = None,
    layers: Annotated[
        Path | None, typer.Option(help="TOML file with the layers that stay float, as --budget writes it.")
    ] = None,
    rest: Annotated[Rest, typer.Option(help="What is not INT8 in an INT8 model.")] = Rest.fp16,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Points of mIoU that INT8 may lose: layers stay float until it loses no more."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What the budget is measured on; for FP16, where no tensor may overflow.")
    ] = None,
    split: Split = "val",
    count: Annotated[
        int | None, typer.Option(min=1, help="Frames of it; without this all, and 16 for FP16.")
    ] = None,
    judge_split: Annotated[
        str,
        typer.Option(help="Split of --data for the verdict; without it, the frames that layers are chosen on."),
    ] = "",
    repair: Annotated[
        str | None,
        typer.Option(
            help="Frames, split train, to repair the model on before layers stay float; without --ranges, to "
            "equalise and calibrate it on too."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="GPU to estimate latencies for, as roadseg.calib.GPUS names it.")] = (
        "orin_agx"
    ),
    json: Json = False,
) -> None:
    """Write the typed ONNX model: casts for FP16, Q/DQ nodes for INT8."""
    from roadseg import calib
    from roadseg.runtime import UsageError
    from roadseg.runtime.settings import read_settings
    from roadseg.train import open_data
    from roadseg.verdict import curve, harm, table

    if budget is None:
        if repair or judge_split or (data and precision is Precision.int8) or (count and not data):
            raise UsageError(
                "--data and --count are what a --budget is measured on, or FP16 is looked at on; --judge-split "
                "and --repair are for a --budget; give one, or leave them out."
            )
        if ranges and len(ranges) > 1:
            raise UsageError("several --ranges are for a --budget to choose from; give one file.")
        report = calib.quantize(
            model,
            precision.value,
            ranges=ranges[0] if ranges else None,
            out=out,
            kept=read_settings(layers, calib.Layers).kept if layers else (),
            rest=rest.value,
            overflow_data=open_data(data, split) if data else None,
            overflow_count=count or 16,
        )
        if precision is Precision.fp16 and not report.overflow_frames:
            log.warning("nobody has looked whether FP16 overflows; give frames (--data) to look on")
        emit(report, json)
        return
    if data is None or not (ranges or repair) or layers is not None or precision is not Precision.int8:
        raise UsageError(
            "--budget is for --precision int8; it needs --ranges, or --repair to make them on, and --data to "
            "measure on, and finds the layers itself."
        )
    if split == "train" and judge_split in ("", "train"):
        log.warning(
            "a network hardly errs on frames that it was trained on, and its INT8 form neither; judge what is "
            "found on others (--judge-split)"
        )
    found = calib.search(
        model,
        ranges or None,
        open_data(data, split),
        budget=budget,
        out=out,
        count=count,
        repair=open_data(repair, "train") if repair else None,
        judged=open_data(data, judge_split) if judge_split else None,
        gpu=calib.find_gpu(target),
        rest=rest.value,
    )
    emit(found if json else found.summary(), json)
    if not json:
        if found.parts:
            console.print(harm(found.parts))
        console.print(curve(found.points, found.verdict.gpu))
        console.print(table(found.verdict))
    if found.kept and ranges and not calib.is_equalised(model):
        log.warning(
            "layers in float: %d; fewer may do if the model is equalised before it is calibrated "
            "(roadseg equalise)",
            len(found.kept),
        )
    found.raise_for_budget()


@app.command()
def round_weights(
    model: Original,
    quantized: Annotated[Path, typer.Argument(help="The INT8 model, its biases not corrected yet.")],
    data: Data,
    out: Out,
    split: Split = "train",
    count: Annotated[int, typer.Option(min=1, help="Images to take.")] = 16,
    first_only: Annotated[
        bool, typer.Option("--first-only", help="Only layers that read the frame: seconds in place of minutes.")
    ] = False,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write an INT8 model whose weights are rounded so that its layers err least on images."""
    from roadseg import calib
    from roadseg.train import open_data

    emit(
        calib.round_weights(
            model,
            quantized,
            open_data(data, split),
            out=out,
            count=count,
            seed=seed,
            first_only=first_only,
            force=force,
        ),
        json,
    )


@app.command()
def finetune(
    model: Exported,
    ranges: Annotated[Path, typer.Option(help="What `roadseg calibrate` wrote for it.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="FP32 model to write; its ranges are written beside it.")],
    split: Split = "train",
    count: Annotated[int, typer.Option(min=1, help="Images to take.")] = 400,
    epochs: Annotated[int, typer.Option(min=1, help="Times that each is seen.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Images that a step is the mean of.")] = 4,
    rate: Annotated[float, typer.Option(help="Part of their size by which a step changes weights.")] = 3e-3,
    label_weight: Annotated[
        float, typer.Option(help="By how much labels count beside the FP32 model's answers; 0: not at all.")
    ] = 0,
    scales: Annotated[
        str, typer.Option(help="The FP32 model answers with the mean over these, from 1, e.g. 1,1.5.")
    ] = "1",
    flip: Annotated[bool, typer.Option(help="And over the mirrored frame.")] = False,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Tune a model's weights and ranges until its INT8 form answers as it does; quantize what comes out."""
    from roadseg import calib
    from roadseg.train import open_data
    from roadseg.train.multiscale import parse_scales

    report = calib.finetune(
        model,
        ranges,
        open_data(data, split),
        out=out,
        count=count,
        epochs=epochs,
        batch=batch,
        rate=rate,
        seed=seed,
        label_weight=label_weight,
        scales=parse_scales(scales),
        flip=flip,
        force=force,
    )
    emit(report, json)


@app.command()
def correct_bias(
    model: Original,
    quantized: Annotated[Path, typer.Argument(help="The INT8 model.")],
    data: Data,
    out: Out,
    split: Split = "train",
    count: Annotated[int, typer.Option(min=1, help="Images to take.")] = 16,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Correct the biases of an INT8 model, wherever that takes its answers nearer to the FP32 model's."""
    from roadseg import calib
    from roadseg.train import open_data

    emit(
        calib.correct_bias(model, quantized, open_data(data, split), out=out, count=count, seed=seed, force=force),
        json,
    )


@app.command()
def lint(model: Path, json: Json = False) -> None:
    """Name every layer of an INT8 model that TensorRT will run with a float side, and why."""
    from roadseg import calib

    report = calib.lint(model)
    emit(report if json else report.summary(), json)


@app.command()
def overflow(
    model: Exported,
    data: Data,
    split: Split = "train",
    count: Annotated[int, typer.Option(min=1, help="Images to take.")] = 16,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Name every tensor of an FP32 model that comes within a factor of 4 of the ends of FP16's range."""
    from roadseg import calib
    from roadseg.train import open_data

    report = calib.overflow(model, open_data(data, split), count=count, seed=seed)
    emit(report if json else report.summary(), json)


@app.command()
def kernels(
    model: Annotated[Path, typer.Argument(help="ONNX model with operators of roadseg.export.ops.")],
    compute_capability: Annotated[
        list[str], typer.Option(help="Of a GPU that engines will be built for, e.g. 8.7; once for each.")
    ],
    out: Out,
    json: Json = False,
) -> None:
    """Compile the kernels of a model's custom operators; no GPU needed."""
    from roadseg.export.kernels import write_kernels

    emit(write_kernels(model, compute_capability, out), json)


@app.command()
def build(
    model: Annotated[Path, typer.Argument(help="ONNX model of any precision.")],
    out: Out,
    flavour: Flavour = Flavour.auto,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            help="Of the GPU to build for, e.g. 8.6. Without it TensorRT-RTX builds for GeForce and RTX GPUs "
            "since Ampere, TensorRT for this machine's."
        ),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="In place of the graph's own; TensorRT before 10.12 only.")
    ] = None,
    ranges: Annotated[
        Path | None, typer.Option(help="For INT8 without Q/DQ nodes; TensorRT before 10.12 only.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Frames in one call, where the model leaves it open.")] = 1,
    workspace_mb: Annotated[
        int | None, typer.Option(min=1, help="Scratch memory a layer may use, in MiB; all of the GPU's otherwise.")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="Kernel timings to read and write; TensorRT only.")
    ] = None,
    plugins: Annotated[
        Plugins, typer.Option(help="For custom operators: where they can be had, or fail without them, or never.")
    ] = Plugins.auto,
    kernels: Annotated[
        Path | None,
        typer.Option(help="What `roadseg kernels` wrote, if not what stands beside the model; TensorRT only."),
    ] = None,
    json: Json = False,
) -> None:
    """Build an engine with its manifest."""
    from roadseg import engines
    from roadseg.building import build_engine

    settings = engines.Settings(
        max_batch=max_batch,
        workspace_bytes=workspace_mb * 2**20 if workspace_mb else None,
        timing_cache=timing_cache,
        precision=precision.value if precision else None,
        ranges=ranges,
        plugins=plugins.value,
        kernels=kernels,
    )
    manifest = build_engine(
        model, out, flavour=flavour.value, compute_capability=compute_capability, settings=settings
    )
    emit(manifest, json)


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="Checkpoint, ONNX file or plan; or the name of a shipped checkpoint.")
    ],
    data: Data,
    split: Split = "val",
    size: MaybeSize = None,
    scales: Annotated[
        str, typer.Option(help="Average over these, e.g. 0.5,0.75,1,1.25,1.5,1.75; checkpoints only.")
    ] = "1",
    flip: Annotated[bool, typer.Option(help="Average with the mirrored frame; checkpoints only.")] = False,
    json: Json = False,
) -> None:
    """Measure a model's mIoU."""
    from roadseg import runtime
    from roadseg.train import open_data

    dataset = open_data(data, split)
    segmenter = open_model(model, parse_size(size) if size else None, scales, flip)
    emit(runtime.evaluate(segmenter, dataset).as_json(), json)


@app.command()
def parity(
    reference: Annotated[str, typer.Argument(help="Checkpoint, ONNX file or plan.")],
    candidate: Annotated[str, typer.Argument(help="What must be as good as the reference.")],
    data: Data,
    split: Split = "val",
    budget: Annotated[float, typer.Option(min=0, help="mIoU that may be lost, in percentage points.")] = 0.1,
    json: Json = False,
) -> None:
    """Compare a candidate with its reference; leaves with 3 when it is beyond the budget."""
    from roadseg import runtime
    from roadseg.train import open_data

    dataset = open_data(data, split)
    second = open_model(candidate)
    first = open_model(reference, second.spec.size)
    report = runtime.compare(first, second, dataset)
    emit(report.as_json(budget), json)
    report.raise_for_parity(budget)


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="Checkpoint, ONNX file or plan.")],
    source: Annotated[
        str,
        typer.Option(
            help="Video file, folder of images, camera (/dev/video0), rtsp:// address, or scenes:frames=96,seed=1."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Labelled video to write, .mp4.")],
    size: MaybeSize = None,
    blend: Annotated[float, typer.Option(min=0, max=1, help="Share of the label colours in the picture.")] = 0.5,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    json: Json = False,
) -> None:
    """Label a video."""
    from roadseg.drives import open_drive
    from roadseg.runtime import video

    segmenter = open_model(model, parse_size(size) if size else None)
    emit(video.run(segmenter, open_drive(source), out, blend=blend, max_frames=max_frames), json)


@app.command()
def inspect(file: Path, json: Json = False) -> None:
    """Say what a checkpoint, ONNX model, ranges file, package of kernels or plan is and where it came from."""
    from roadseg.inspect import describe

    emit(describe(file), json)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what this machine can do, and what to install for the rest."""
    from roadseg.doctor import examine

    emit(examine(), json)


@app.command()
def pipeline(
    config: Annotated[Path, typer.Argument(help="TOML file; see docs/pipeline.md.")], json: Json = False
) -> None:
    """Run every step of a TOML file; a step whose inputs have not changed is not run again."""
    from roadseg.pipeline import run_pipeline

    emit(run_pipeline(config), json)


def open_model(name: str, size: Size | None = None, scales: str = "1", flip: bool = False) -> Any:
    """A Segmenter for a file, or for a checkpoint that ships with roadseg."""
    from roadseg.runtime import Segmenter

    if scales != "1" or flip:
        from roadseg.train import find_checkpoint, open_multiscale
        from roadseg.train.multiscale import parse_scales

        return open_multiscale(find_checkpoint(name), parse_scales(scales), flip, size)
    if not Path(name).suffix:
        from roadseg.train import find_checkpoint

        return Segmenter.open(find_checkpoint(name), size=size)
    return Segmenter.open(Path(name), size=size)


def emit(result: Any, as_json: bool) -> None:
    """Print a result: JSON on standard output, or a line for each value on standard error."""
    plain = msgspec.to_builtins(result, enc_hook=str)
    if as_json:
        sys.stdout.write(msgspec.json.encode(plain).decode() + "\n")
        return
    rows = flatten(plain)
    width = max((len(key) for key, _ in rows), default=0)
    for key, value in rows:
        console.print(f"{key:<{width}}  {value}", markup=False)


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings, and lists of them, as rows of dotted key and text.

    >>> flatten({"a": {"b": 1.5}, "c": [1, 2], "d": [{"e": 3}]})
    [('a.b', '1.5'), ('c', '1, 2'), ('d.0.e', '3')]
    """
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, dict) for item in value):
        value = {str(i): item for i, item in enumerate(value)}
    if isinstance(value, dict):
        return [row for k, v in value.items() for row in flatten(v, f"{prefix}.{k}" if prefix else str(k))]
    if isinstance(value, (list, tuple)):
        return [(prefix, ", ".join(str(item) for item in value))]
    return [(prefix, f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value))]


def main() -> None:
    """Run the command; every expected failure is one sentence and its exit code."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # a network in the current folder is found, as with python -m
    try:
        app()
    except RoadsegError as error:
        console.print(f"roadseg: {error}", markup=False)
        sys.exit(error.exit_code)
    except Exception as error:  # a bug of ours; a user gets a sentence, a developer the traceback
        if os.environ.get("ROADSEG_DEBUG"):
            raise
        console.print(
            f"roadseg {__version__} failed in a way it should not: {type(error).__name__}: {error}. "
            "Set ROADSEG_DEBUG=1 for the traceback, and report it.",
            markup=False,
        )
        sys.exit(1)
