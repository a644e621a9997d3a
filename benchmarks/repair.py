"""What equalising channels, rounding weights and correcting biases give back of the mIoU that INT8 costs.

Run: python -m benchmarks.repair camvid:PATH --out FILE [--equalised LIST] [--ranges LIST] [--repaired LIST]

Fast-SCNN's shipped weights at 360x480, calibrated on 64 frames of `train`, weights and biases on 16, ranges of
each tensor chosen on 8, measured on all of `val` in ONNX Runtime on the CPU, each against the FP32 model. Writes
every figure as JSON, and a table of them beside it, after every row. Rows of FILE that are not asked for stay, if
network and ONNX Runtime are the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from roadseg import calib
from roadseg.calib import METHODS
from roadseg.calib.correct_bias import add_to_bias, channel_means, fixed_reason
from roadseg.calib.equalise import Channels, Seam, by_groups, rescale, seams
from roadseg.calib.graph import Graph, array_of
from roadseg.calib.observe import Frames
from roadseg.calib.placement import Layer, place
from roadseg.calib.source import load_float_model
from roadseg.calib.trial import remembering
from roadseg.exporting import export_network
from roadseg.runtime import Dataset, Segmenter, compare, write_atomically
from roadseg.runtime.onnxfile import load_onnx, onnx_spec, save_onnx
from roadseg.train import open_data

SIZE = (360, 480)
SWEEPS = 40
"""Over all layers, in which Nagel's factors settle to within a hundredth."""

CONDITIONS = {
    "network": "Fast-SCNN, shipped weights camvid, 360x480",
    "frames": "CamVid, 64 of train for ranges and equalisation, 8 to choose ranges by tensor, 16 for weights and "
    "biases, all of val to measure",
    "backend": f"ONNX Runtime {onnxruntime.__version__} on a CPU",
}

Equaliser = Callable[[Path, Dataset, Path], Path]
Corrector = Callable[[Path, Path, Dataset, Path], Path]


def as_it_is(model: Path, _: Dataset, __: Path) -> Path:
    """The exported model."""
    return model


def by_weights(model: Path, _: Dataset, out: Path) -> Path:
    """Equalised by weights alone, as in Nagel et al., section 4.1: both sides of a channel get the same range."""
    network = load_float_model(model)
    graph = Graph(network)
    for _sweep in range(SWEEPS):
        for seam in seams(graph):
            rescale(graph, seam, nagel_factors(graph, seam))
    save_onnx(out, network)
    return out


def nagel_factors(graph: Graph, seam: Seam) -> Channels:
    """Roots of the range of a channel's weights where it is made over that where it is read (equation 11)."""
    made = largest(graph, seam.before, (2, 3))
    read = np.max([largest(graph, reader, (1, 3)) for reader in seam.after], axis=0)
    alive = (made > 0) & (read > 0)
    factors: Channels = np.sqrt(np.where(alive, made, 1) / np.where(alive, read, 1))
    return factors


def largest(graph: Graph, node: Any, axes: tuple[int, int]) -> Channels:
    """Largest magnitudes of a layer's weights over `axes` of groups, outputs, inputs and positions."""
    return np.abs(by_groups(node, array_of(graph.constants[node.input[1]]))).max(axis=axes).ravel()


def by_reach(model: Path, train: Dataset, out: Path) -> Path:
    """Equalised by what channels reach, as `roadseg equalise` does."""
    return calib.equalise(model, train, out=out).path


def as_they_are(_: Path, quantized: Path, __: Dataset, ___: Path) -> Path:
    """The quantised model."""
    return quantized


def in_one_sweep(model: Path, quantized: Path, train: Dataset, out: Path) -> Path:
    """All biases corrected by what one sweep over the frames finds."""
    exact, rounded = load_float_model(model), load_onnx(quantized)
    layers = with_biases(exact, rounded)
    frames = Frames(train, onnx_spec(exact, model), 16, 0, False)
    wanted, given = (channel_means(m, frames.spec, layers, frames, "means") for m in (exact, rounded))
    for node in rounded.graph.node:
        if node.output[0] in wanted:
            add_to_bias(rounded, node, (wanted[node.output[0]] - given[node.output[0]]).mean(axis=0))
    save_onnx(out, rounded)
    return out


def every_one(model: Path, quantized: Path, train: Dataset, out: Path) -> Path:
    """Biases corrected one after the other, and none put back, whatever the answers become."""
    exact, rounded = load_float_model(model), load_onnx(quantized)
    layers = with_biases(exact, rounded)
    frames = Frames(train, onnx_spec(exact, model), 16, 0, False)
    nodes = {node.output[0]: node for node in rounded.graph.node}
    wanted = channel_means(exact, frames.spec, layers, frames, "means")
    for layer in layers:
        given = channel_means(rounded, frames.spec, [layer], frames, layer.output)
        add_to_bias(rounded, nodes[layer.output], (wanted[layer.output] - given[layer.output]).mean(axis=0))
    save_onnx(out, rounded)
    return out


def with_biases(exact: onnx.ModelProto, rounded: onnx.ModelProto) -> list[Layer]:
    """The INT8 layers whose biases can be moved."""
    nodes = {node.output[0]: node for node in rounded.graph.node}
    layers = place(exact).int8_outputs.values()
    return [layer for layer in layers if not fixed_reason(rounded, nodes[layer.output])]


def layer_by_layer(model: Path, quantized: Path, train: Dataset, out: Path) -> Path:
    """Biases corrected one after the other where that helps, as `roadseg correct-bias` does."""
    return calib.correct_bias(model, quantized, train, out=out).path


def rounded(model: Path, quantized: Path, train: Dataset, out: Path) -> Path:
    """Weights rounded anew, as `roadseg round-weights` does."""
    return calib.round_weights(model, quantized, train, out=out).path


def rounded_and_corrected(model: Path, quantized: Path, train: Dataset, out: Path) -> Path:
    """Weights rounded anew, then biases corrected."""
    between = out.with_suffix(".rounded.onnx")
    return layer_by_layer(model, rounded(model, quantized, train, between), train, out)


EQUALISERS: dict[str, Equaliser] = {"none": as_it_is, "weights (Nagel)": by_weights, "reach (ours)": by_reach}
CORRECTORS: dict[str, Corrector] = {
    "none": as_they_are,
    "biases in one sweep": in_one_sweep,
    "every bias, layer by layer": every_one,
    "biases layer by layer (ours)": layer_by_layer,
    "weights rounded": rounded,
    "weights rounded, then biases layer by layer": rounded_and_corrected,
}
PER_TENSOR = "per tensor (ours)"
RANGES = (*METHODS, PER_TENSOR)
NAMES = ("equalised", "method", "repaired")
"""Columns that tell a row from the others."""


def study(data: str, folder: Path, parts: dict[str, Collection[str]]) -> Iterator[dict[str, Any]]:
    """A row for every combination of equalisation, range method and repair that is asked for, by column."""
    train, val = open_data(data, "train"), open_data(data, "val")
    exported = folder / "m.onnx"
    export_network("fastscnn", "camvid", exported, size=SIZE)
    reference = remembering(exported)
    for equaliser in parts["equalised"]:
        model = EQUALISERS[equaliser](exported, train, folder / "equal.onnx")
        ranges = ranges_by_method(model, train, folder, parts["method"])
        for method, corrector in itertools.product(parts["method"], parts["repaired"]):
            calib.quantize(model, "int8", ranges=ranges[method], out=folder / "int8.onnx", rest="fp32")
            candidate = CORRECTORS[corrector](model, folder / "int8.onnx", train, folder / "repaired.onnx")
            verdict = compare(reference, Segmenter.open(candidate), val).as_json(budget=1.0)
            yield dict(zip(NAMES, (equaliser, method, corrector), strict=True)) | figures(verdict)


def ranges_by_method(model: Path, train: Dataset, folder: Path, methods: Collection[str]) -> dict[str, Path]:
    """The ranges of a model, a file for each method."""
    collected = METHODS if PER_TENSOR in methods else calib.parse_methods(",".join(methods))
    outs = {method: folder / f"{method}.ranges" for method in collected}
    calib.calibrate_each(model, train, outs)
    paths = {str(method): path for method, path in outs.items()}
    if PER_TENSOR in methods:
        chosen = calib.choose_ranges(model, list(outs.values()), train, out=folder / "chosen.ranges")
        paths[PER_TENSOR] = chosen.path
    return paths


def figures(verdict: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a verdict."""
    kept = ("miou_reference", "miou_candidate", "miou_drop", "ci95", "pixel_agreement", "frames")
    return {key: verdict[key] for key in kept} | {"per_class_iou": verdict["candidate"]["per_class_iou"]}


def page(found: dict[str, Any]) -> str:
    """The table of a study, with its conditions."""
    conditions = "; ".join(f"{key}: {value}" for key, value in found["conditions"].items())
    head = "| equalised by | ranges | repaired | mIoU | lost, with 95 % interval | pixels as in FP32, % |"
    rows = "\n".join(line(row) for row in found["rows"])
    reference = found["rows"][0]["miou_reference"]
    return (
        f"FP32 has {reference:.2f} mIoU. Made by `python -m benchmarks.repair`; {conditions}.\n\n"
        f"{head}\n|---|---|---|---|---|---|\n{rows}\n"
    )


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    low, high = row["ci95"]
    lost = f"{row['miou_drop']:.2f} ({low:.2f} to {high:.2f})"
    names = " | ".join(row[name] for name in NAMES)
    return f"| {names} | {row['miou_candidate']:.2f} | {lost} | {row['pixel_agreement']:.2f} |"


def earlier_rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a file that were measured on the same network by the same ONNX Runtime."""
    if not out.is_file():
        return []
    found = json.loads(out.read_bytes())
    same = all(found["conditions"][key] == CONDITIONS[key] for key in ("network", "backend"))
    return found["rows"] if same else []


def merge(rows: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows with one added, or put in the place of the same combination's, in the order of the whole study."""
    others = [row for row in rows if any(row[name] != new[name] for name in NAMES)]
    orders = [list(choices) for choices in (EQUALISERS, RANGES, CORRECTORS)]

    def place(row: dict[str, Any]) -> list[int]:
        return [order.index(row[name]) for order, name in zip(orders, NAMES, strict=True)]

    return sorted([*others, new], key=place)


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """The figures as JSON, and a table beside it."""
    found = {"conditions": CONDITIONS, "rows": rows}
    write_atomically(out, json.dumps(found, indent=1).encode() + b"\n")
    write_atomically(out.with_suffix(".md"), page(found).encode())


def listed(known: Collection[str]) -> Callable[[str], list[str]]:
    """A parser of names separated by semicolons, in the order given."""

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(";")]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {'; '.join(known)}")
        return names

    return parse


def main() -> None:
    """Run the study, or a part of it, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="camvid:PATH")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write.")
    for option, known in (("--equalised", EQUALISERS), ("--ranges", RANGES), ("--repaired", CORRECTORS)):
        parser.add_argument(
            option,
            type=listed(known),
            default=list(known),
            help=f"Only these, with semicolons: {'; '.join(known)}.",
        )
    arguments = parser.parse_args()
    parts = dict(zip(NAMES, (arguments.equalised, arguments.ranges, arguments.repaired), strict=True))
    rows = earlier_rows(arguments.out)
    with tempfile.TemporaryDirectory() as folder:
        for row in study(arguments.data, Path(folder), parts):
            print(line(row), flush=True)
            rows = merge(rows, row)
            write(arguments.out, rows)


if __name__ == "__main__":
    main()
