r"""Our INT8 beside ONNX Runtime's static quantisation and NVIDIA ModelOpt's, from the same weights and images.

Run: python -m benchmarks.int8 camvid:PATH --net NAME --checkpoint FILE --out FILE [--peers-python PYTHON]
[--only ROW ...]

One model for each row of `ROWS`, all made from one exported network and the same 64 frames of `train`, measured
on all of `val` by the same code in ONNX Runtime, each against the FP32 model. What is INT8 `roadseg lint` tells,
whoever made the model; whether TensorRT takes it is asked of TensorRT-RTX, which builds it. Rows and networks that
the file has are kept, so that an interrupted run goes on; those made under other conditions are made anew.

ModelOpt pins other versions of onnx and onnxruntime than ours, hence PYTHON, of an environment that has it; its
rows are left out without. The environment of the committed figures is its extra `onnx` with onnxruntime for a CPU
in place of that for a GPU, and without cupy:

    python3.11 -m venv peers && peers/bin/pip install torch 'nvidia-modelopt==0.47.0' 'onnx~=1.21.0' \
        'onnxruntime~=1.24.2' 'onnxconverter-common~=1.16.0' onnx-graphsurgeon onnxslim onnxscript polygraphy \
        lief ml_dtypes cppimport
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import fnmatch
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from roadseg import calib, engines
from roadseg.calib import METHODS, Method
from roadseg.calib.lint import LintReport, lint_model
from roadseg.calib.observe import Frames
from roadseg.calib.provenance import provenance, stamp
from roadseg.calib.ranges import feed
from roadseg.calib.trial import pixels_sha256, remembering
from roadseg.exporting import export_network
from roadseg.runtime import (
    BuildError,
    Dataset,
    ParityReport,
    RoadsegError,
    Sample,
    Segmenter,
    compare,
    parse_size,
    sha256_bytes,
    sha256_file,
    write_atomically,
)
from roadseg.runtime.onnxfile import load_onnx, onnx_spec, save_onnx, set_metadata
from roadseg.train import MODELS, find_checkpoint, open_data

IMAGES = 64
"""Of `train`, for ranges; everybody's."""
SEARCHED = 50
"""Frames of `train` on which ranges are chosen, and layers that stay float."""
SEARCH_SEED = 1
"""Of their choice; another than that of the calibration images."""
BUDGET = 0.05
"""Points of mIoU that INT8 may lose on those."""
BUDGET_ON_VAL = 0.1
"""The same on `val`, where the choice is made on that."""
TUNED: dict[str, Any] = {"epochs": 2, "label_weight": 1}
"""How models are fine-tuned with labels, on all of `train`."""
TUNED_ALIKE: dict[str, Any] = {"epochs": 8, "label_weight": 1, "count": IMAGES}
"""The same on the images that everybody has."""
UNLABELLED: dict[str, Any] = {"epochs": 8, "scales": (1, 1.5), "flip": True, "count": IMAGES}
"""On those without their labels, from more views of them than one."""
COMPUTE_CAPABILITY = "8.6"
PEERS = Path(__file__).with_name("peers_int8.py")


@dataclasses.dataclass(frozen=True)
class Context:
    """What models are made with, beside the exported network."""

    train: Dataset
    val: Sequence[Sample]
    folder: Path
    """For whatever is made on the way; empty at first."""
    peers_python: Path | None = None
    """Interpreter of an environment with ModelOpt."""


Maker = Callable[[Path, Context], Path]
"""From the exported float32 model to the one of a row."""


def as_it_is(model: Path, _: Context) -> Path:
    """The exported model."""
    return model


def as_fp16(model: Path, context: Context) -> Path:
    """As `roadseg quantize --precision fp16` makes it."""
    return calib.quantize(model, "fp16", out=context.folder / "fp16.onnx").path


def by(method: Method) -> Maker:
    """A maker of INT8 with the ranges of one method, as `roadseg quantize --precision int8` makes it."""

    def make(model: Path, context: Context) -> Path:
        out = context.folder / f"{model.stem}_{method}.onnx"
        return calib.quantize(model, "int8", ranges=ranges(model, method, context), out=out).path

    return make


def corrected(method: Method) -> Maker:
    """A maker of the same with biases corrected, as `roadseg correct-bias` does; once, for that takes a while."""

    def make(model: Path, context: Context) -> Path:
        out = context.folder / f"{model.stem}_{method}_corrected.onnx"
        if not out.exists():
            calib.correct_bias(model, by(method)(model, context), context.train, out=out)
        return out

    return make


def repaired(model: Path, context: Context) -> Path:
    """Equalised, with min-max ranges and biases corrected, as [repair] of a pipeline does."""
    return corrected("minmax")(equalised(model, context), context)


def searched(model: Path, context: Context) -> Path:
    """What `roadseg quantize --budget --repair` finds on frames of `train`, ranges and equalising included."""
    samples = [context.train[i] for i in calib.choose(context.train, SEARCHED, SEARCH_SEED)]
    return search(model, context, samples, BUDGET)


def searched_on_val(model: Path, context: Context) -> Path:
    """The same on all of `val`: what it loses there was what it was chosen by."""
    return search(model, context, context.val, BUDGET_ON_VAL)


def search(model: Path, context: Context, samples: Sequence[Sample], budget: float) -> Path:
    """What is found without ranges."""
    out = context.folder / "searched.onnx"
    return calib.search(model, None, samples, budget=budget, out=out, repair=context.train).path


def tuned(settings: dict[str, Any]) -> Maker:
    """A maker of the float32 model that `roadseg finetune` writes; once, for that takes a while."""

    def make(model: Path, context: Context) -> Path:
        out = context.folder / f"tuned_{sha256_bytes(json.dumps(settings).encode())}.onnx"
        if not out.exists():
            calib.finetune(model, ranges(model, "entropy", context), context.train, out=out, **settings)
        return out

    return make


def tuned_int8(settings: dict[str, Any]) -> Maker:
    """A maker of its INT8 form, with the ranges that were learned."""

    def make(model: Path, context: Context) -> Path:
        path = tuned(settings)(model, context)
        out = context.folder / "tuned_int8.onnx"
        return calib.quantize(path, "int8", ranges=path.with_suffix(".ranges"), out=out).path

    return make


def by_peer(tool: str, **settings: Any) -> Maker:
    """A maker of what another tool writes, with the metadata of the model it came from, which no tool keeps.

    Args:
        tool: key of `TOOLS` in peers_int8.py.
        settings: the tool's arguments.
    """

    def make(model: Path, context: Context) -> Path:
        out = context.folder / "peer.onnx"
        python = context.peers_python if tool == "modelopt" else sys.executable
        command = [python, PEERS, tool, model, calibration_inputs(model, context), out, "--settings"]
        done = subprocess.run(
            [*map(str, command), json.dumps(settings)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RoadsegError((done.stderr.strip().splitlines() or [f"{tool} ended with {done.returncode}"])[-1])
        return adopt(out, model, json.loads(done.stdout.splitlines()[-1]))

    return make


ROWS: dict[str, Maker] = {
    "FP32": as_it_is,
    "FP16": as_fp16,
    **{f"INT8, {method}": by(method) for method in METHODS},
    "INT8, entropy, biases corrected": corrected("entropy"),
    "INT8, equalised, minmax, biases corrected": repaired,
    "INT8, searched": searched,
    "INT8, searched on val": searched_on_val,
    f"INT8, fine-tuned without labels on the {IMAGES} frames": tuned_int8(UNLABELLED),
    f"INT8, fine-tuned with labels of the {IMAGES} frames": tuned_int8(TUNED_ALIKE),
    "FP32, fine-tuned with labels": tuned(TUNED),
    "INT8, fine-tuned with labels": tuned_int8(TUNED),
    "ORT": by_peer("onnxruntime"),
    "ORT, per channel": by_peer("onnxruntime", per_channel=True),
    "ORT, per channel, symmetric, float biases": by_peer(
        "onnxruntime", per_channel=True, extra_options={"ActivationSymmetric": True, "QuantizeBias": False}
    ),
    "ModelOpt": by_peer("modelopt"),
    "ModelOpt, max": by_peer("modelopt", calibration_method="max"),
}
"""In the order of the table: ours, then peers by the name of the tool, at their defaults but for what is named."""
SIDE_BY_SIDE = (
    "INT8, entropy",
    "INT8, searched on val",
    f"INT8, fine-tuned without labels on the {IMAGES} frames",
    f"INT8, fine-tuned with labels of the {IMAGES} frames",
    "ORT",
    "ORT, per channel, symmetric, float biases",
    "ModelOpt",
)
"""Of the table of all networks."""


def equalised(model: Path, context: Context) -> Path:
    """The model equalised, made once."""
    out = context.folder / "equalised.onnx"
    return out if out.exists() else calib.equalise(model, context.train, out=out, count=IMAGES).path


def ranges(model: Path, method: Method, context: Context) -> Path:
    """Of a model, by one method; those by all of them are collected in one pass, once."""
    outs = {known: context.folder / f"{model.stem}_{known}.ranges" for known in METHODS}
    if not outs[method].exists():
        calib.calibrate_each(model, context.train, outs, count=IMAGES)
    return outs[method]


def calibration_inputs(model: Path, context: Context) -> Path:
    """The images that `calibrate` chooses, as the model takes them, in a NumPy file `(N, ...)`; made once."""
    out = context.folder / "inputs.npy"
    if not out.exists():
        spec = onnx_spec(load_onnx(model), model)
        np.save(out, np.concatenate([feed(f, spec, 1) for f in Frames(context.train, spec, IMAGES, 0, False)]))
    return out


def adopt(made: Path, model: Path, tools: dict[str, str]) -> Path:
    """Give a file a tool has made of `model` what that says of itself, and the tools' versions; in place."""
    quantized, original = load_onnx(made), load_onnx(model)
    set_metadata(quantized, {entry.key: entry.value for entry in original.metadata_props})
    stamp(quantized, "int8", {"onnx": sha256_file(model), **{f"by {name}": text for name, text in tools.items()}})
    save_onnx(made, quantized)
    return made


def row(model: Path, reference: Segmenter, val: Iterable[Sample], folder: Path) -> dict[str, Any]:
    """All that is told of one model."""
    network = load_onnx(model)
    tools = {key.removeprefix("by "): v for key, v in provenance(network).items() if key.startswith("by ")}
    verdict = compare(reference, Segmenter.open(model), val)
    return {
        **accuracy(verdict),
        **structure(lint_model(network)),
        "refused": refusal(model, folder),
        "tools": tools,
    }


def accuracy(report: ParityReport) -> dict[str, Any]:
    """What is kept of a comparison; percentages."""
    verdict = report.as_json(BUDGET)
    kept = ("miou_reference", "miou_candidate", "miou_drop", "ci95", "pixel_agreement", "frames")
    before, after = (verdict[side]["per_class_iou"] for side in ("reference", "candidate"))
    drops = {name: before[name] - after[name] for name in before if None not in (before[name], after[name])}
    return {key: verdict[key] for key in kept} | {"class_drops": drops}


def structure(report: LintReport) -> dict[str, Any]:
    """What a model's layers run as, and the findings of the lint by side; none of them where nothing is INT8."""
    sides = collections.Counter(finding.side for finding in report.findings) if report.int8_layers else {}
    return {
        "int8_mac_share": report.mac_share,
        "layers": report.layers,
        "float_layers": report.layers - report.int8_layers,
        "findings": dict(sorted(sides.items())),
    }


def refusal(model: Path, folder: Path) -> str:
    """What TensorRT-RTX says against a model; empty if it builds it."""
    try:
        engines.build(model, folder / "row.plan", flavour="rtx", compute_capability=COMPUTE_CAPABILITY)
    except BuildError as error:
        return str(error).replace(f"{model.parent}/", "")
    return ""


def conditions(checkpoint: Path, model: Path, train: Dataset, val: list[Sample]) -> dict[str, Any]:
    """What the figures of one network depend on."""
    spec = onnx_spec(load_onnx(model), model)
    return {
        "size": list(spec.size),
        "checkpoint_sha256": sha256_file(checkpoint),
        "onnx_sha256": sha256_file(model),
        "calibration_images": IMAGES,
        "calibration_images_sha256": Frames(train, spec, IMAGES, 0, False).listed().sha256,
        "frames": len(val),
        "frames_sha256": pixels_sha256(val),
        **{name: version(name) for name in ("onnxruntime", "onnx", "numpy", "tensorrt_rtx")},
    }


def entry_of(study: dict[str, Any], network: str, checkpoint: str, found: dict[str, Any]) -> dict[str, Any]:
    """The study's entry for a network; a new one, in place of any old one, where that has other conditions."""
    entries = study["networks"]
    old = next((e for e in entries if (e["network"], e["checkpoint"]) == (network, checkpoint)), None)
    if old is not None and old["conditions"] == found:
        return old
    new = {"network": network, "checkpoint": checkpoint, "conditions": found, "rows": {}}
    if old is None:
        entries.append(new)
    else:
        entries[entries.index(old)] = new
    return new


def fill(
    entry: dict[str, Any],
    wanted: dict[str, Maker],
    make_row: Callable[[Maker], dict[str, Any]],
    save: Callable[[], None],
) -> None:
    """Add the rows that an entry lacks, or that failed, in the order of `ROWS`, and save after each."""
    for name, maker in wanted.items():
        if "miou_candidate" in entry["rows"].get(name, {}):
            continue
        begun = time.perf_counter()
        entry["rows"][name] = make_row(maker)
        entry["rows"] = {known: entry["rows"][known] for known in ROWS if known in entry["rows"]}
        save()
        print(f"{time.perf_counter() - begun:6.0f} s  {line(name, entry['rows'][name])}", flush=True)


def study_network(
    study: dict[str, Any], arguments: argparse.Namespace, folder: Path, save: Callable[[], None]
) -> None:
    """Everything about one network."""
    train, val = open_data(arguments.data, "train"), list(open_data(arguments.data, "val"))
    checkpoint, size = find_checkpoint(arguments.checkpoint), parse_size(arguments.size)
    model = folder / "model.onnx"
    export_network(arguments.net, str(checkpoint), model, size=size)
    reference = remembering(model)
    context = Context(train, val, folder, arguments.peers_python)

    def make_row(maker: Maker) -> dict[str, Any]:
        try:
            return row(maker(model, context), reference, val, folder)
        except RoadsegError as error:
            return {"error": str(error).replace(f"{folder}/", "")}

    found = conditions(checkpoint, model, train, val)
    entry = entry_of(study, arguments.net, checkpoint.stem, found)
    fill(entry, wanted_rows(arguments.only, arguments.peers_python is not None), make_row, save)


def wanted_rows(only: list[str] | None, modelopt: bool) -> dict[str, Maker]:
    """The rows with names like any of `only`, all without; ModelOpt's only where it can be run."""
    return {
        name: maker
        for name, maker in ROWS.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in only or ["*"])
        and (modelopt or not name.startswith("ModelOpt"))
    }


def page(study: dict[str, Any]) -> str:
    """The study in Markdown."""
    sections = [section(entry) for entry in study["networks"]]
    return "\n\n".join([INTRODUCTION, overview(study["networks"]), *sections]) + "\n"


INTRODUCTION = f"""\
Made by `python -m benchmarks.int8`, which says how. Every model is made from the same weights and the same \
{IMAGES} frames of CamVid `train`, and measured on all of `val` in ONNX Runtime on a CPU. "INT8" is the share of \
multiply-accumulate operations in layers whose data and weights are both 8 bits. Rows that begin with INT8 are \
ours; ORT is `onnxruntime.quantization.quantize_static`, behind `quant_pre_process`; ModelOpt is \
`modelopt.onnx.quantization.quantize`. A row of theirs without more words has the tool's defaults.

Four rows are of what `roadseg finetune` made of the network, and may be better than the network was. Without \
labels it saw the {IMAGES} frames {UNLABELLED["epochs"]} times (`--scales 1,1.5 --flip`), and learned from no \
more than what the others calibrate on. With labels, which nobody else here has, it saw them \
{TUNED_ALIKE["epochs"]} times, or all of `train` {TUNED["epochs"]} times. The row of FP32 tells what more \
training gains, that of INT8 beside it what rounding leaves of that.

All get the file that `roadseg export` writes, from frames to labels. Of it ORT makes the normalisation 8 bits \
too, and logits before and after they are resized; ModelOpt the logits before.

TensorRT-RTX names the first node that it refuses, and there may be more: ORT's biases of 32 bits come before \
its zero points."""


def overview(entries: list[dict[str, Any]]) -> str:
    """Accuracy and INT8 share of all networks, side by side."""
    head = "| network | FP32 | " + " | ".join(SIDE_BY_SIDE) + " |\n|" + "---|" * (2 + len(SIDE_BY_SIDE))
    return "\n".join([head, *(overview_line(entry) for entry in entries)])


def overview_line(entry: dict[str, Any]) -> str:
    """A network of it."""
    rows = [entry["rows"].get(name, {}) for name in SIDE_BY_SIDE]
    cells = [overview_cell(row) for row in rows]
    reference = next((f"{r['miou_reference']:.2f}" for r in entry["rows"].values() if "miou_reference" in r), "")
    return f"| {' | '.join([title(entry), reference, *cells])} |"


def overview_cell(row: dict[str, Any]) -> str:
    """A model of it; empty where there are no figures."""
    if "miou_candidate" not in row:
        return ""
    return f"{row['miou_candidate']:.2f}, {share(row)} INT8" + (", not for TensorRT" if row["refused"] else "")


def title(entry: dict[str, Any]) -> str:
    """A network and its weights."""
    return f"{entry['network']} ({entry['checkpoint']})"


def share(row: dict[str, Any]) -> str:
    """The INT8 share in percent, rounded down, so that 100 % are all operations."""
    return f"{int(row['int8_mac_share'] * 10000) / 100:.2f} %"


def section(entry: dict[str, Any]) -> str:
    """Everything about one network."""
    about = entry["conditions"]
    said = (
        f"Frames of {'x'.join(map(str, about['size']))}, {about['frames']} of them; ONNX Runtime "
        f"{about['onnxruntime']}, TensorRT-RTX {about['tensorrt_rtx']}; weights with SHA-256 "
        f"{about['checkpoint_sha256'][:12]}."
    )
    head = (
        "| model | mIoU | lost, with 95 % interval | pixels as in FP32, % | worst class | INT8 | float layers "
        "| findings of the lint | TensorRT-RTX takes it |"
    )
    lines = [line(name, entry["rows"][name]) for name in entry["rows"]]
    notes = refusals(entry["rows"]) + tools_used(entry["rows"])
    return "\n".join([f"## {title(entry)}", "", said, "", head, "|" + "---|" * 9, *lines, *notes])


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    if "error" in row:
        return f"| {name} | {row['error']} |"
    low, high = row["ci95"]
    worst = max(row["class_drops"], key=row["class_drops"].__getitem__)
    findings = ", ".join(f"{count} {side}" for side, count in row["findings"].items())
    cells = (
        f"{row['miou_candidate']:.2f}",
        f"{row['miou_drop']:.2f} ({low:.2f} to {high:.2f})",
        f"{row['pixel_agreement']:.2f}",
        f"{worst} {row['class_drops'][worst]:.2f}",
        share(row),
        f"{row['float_layers']} of {row['layers']}",
        findings or "none",
        "no" if row["refused"] else "yes",
    )
    return f"| {' | '.join([name, *cells])} |"


def refusals(rows: dict[str, Any]) -> list[str]:
    """Why TensorRT-RTX takes some models not, a paragraph for each reason."""
    names = collections.defaultdict(list)
    for name, row in rows.items():
        if row.get("refused"):
            names[row["refused"]].append(name)
    return [text for reason, models in names.items() for text in ("", f"{'; '.join(models)}: {reason}")]


def tools_used(rows: dict[str, Any]) -> list[str]:
    """A paragraph with the versions of peers; none where there are none."""
    used = {tuple(row["tools"].items()): None for row in rows.values() if row.get("tools")}
    texts = [", ".join(f"{name} {text}" for name, text in tools) for tools in used]
    return ["", f"Peers: {'; '.join(texts)}."] if texts else []


def main() -> None:
    """Study one network, and write that down beside the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="camvid:PATH")
    parser.add_argument(
        "--net", choices=MODELS, required=True, metavar="NAME", help="Key of roadseg.train.MODELS."
    )
    parser.add_argument("--checkpoint", required=True, help="File, or the name of one that ships.")
    parser.add_argument("--size", default="360x480", help="Rows and columns, that the network takes.")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, or to go on with.")
    parser.add_argument("--peers-python", type=Path, help="Interpreter of an environment with ModelOpt.")
    parser.add_argument("--only", nargs="+", help="Names of rows; * stands for any text.")
    arguments = parser.parse_args()
    study = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"networks": []}

    def save() -> None:
        write_atomically(arguments.out, json.dumps(study, indent=1).encode() + b"\n")
        write_atomically(arguments.out.with_suffix(".md"), page(study).encode())

    with tempfile.TemporaryDirectory() as folder:
        study_network(study, arguments, Path(folder), save)


if __name__ == "__main__":
    main()
