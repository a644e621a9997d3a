"""All steps from one TOML file: network to ONNX, ranges, typed models, parity, engines, video, report.

Every step writes into the folder `out`, is recorded there, and is not run again while its settings, inputs and
outputs stay as they were; so an interrupted pipeline goes on where it was. Paths are relative to the TOML file.
docs/pipeline.md shows every setting.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any, Literal

import msgspec

from roadseg import calib, runtime
from roadseg.runtime import (
    Dataset,
    ParityError,
    Segmenter,
    Size,
    parse_size,
)
from roadseg.runtime.settings import read_settings
from roadseg.train import find_checkpoint, open_data

from .building import build_engine
from .exporting import export_network, open_network
from .steps import Steps, read_json, write_json

log = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "int8"]
SUMMARY = ("miou_reference", "miou_candidate", "miou_drop", "pixel_agreement", "budget", "within_budget")
"""What is printed of each verdict; the rest stands in parity_*.json."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """[network]: what is exported."""

    net: str
    """Key of roadseg.train.MODELS, or package.module:factory."""
    weights: str
    """File, or name of a shipped checkpoint."""
    size: str
    """Rows x columns, e.g. "360x480"."""
    spec: str = ""
    """TOML file with the ModelSpec, for weights that carry none."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """[data]: frames to calibrate on and to measure on, as kind:path."""

    calibration: str
    evaluation: str
    calibration_split: str = "train"
    evaluation_split: str = "val"


@dataclasses.dataclass(frozen=True)
class CalibrationConfig:
    """[calibration]: see `roadseg calibrate`."""

    count: int = 64
    method: calib.Method = "entropy"
    seed: int = 0
    force: bool = False
    check_colours: bool = True


@dataclasses.dataclass(frozen=True)
class QuantizeConfig:
    """[quantize]: see `roadseg quantize`."""

    rest: calib.Rest = "fp16"
    """Precision of what is not INT8 in the INT8 model."""


@dataclasses.dataclass(frozen=True)
class RepairConfig:
    """[repair]: what is done so that INT8 loses less; on the images of [calibration]."""

    equalise: bool = False
    """See `roadseg equalise`."""
    biases: bool = False
    """See `roadseg correct-bias`."""
    bias_count: int = 16
    """Images that biases are corrected on."""
    layers: bool = False
    """Leave layers float until the INT8 model keeps to [budget] on images of [calibration], as `roadseg quantize
    --budget` does; where that is needed and `biases` is true, what `search` repairs is repaired first."""
    layers_count: int = 50
    """Images that layers are chosen on."""


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """[finetune]: weights and scales of INT8 are learned on calibration data, see `roadseg finetune`."""

    count: int = 400
    epochs: int = 4
    batch: int = 4
    rate: float = 3e-3
    label_weight: float = 0
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False


@dataclasses.dataclass(frozen=True)
class EnginesConfig:
    """[engines]: built for every precision whose parity holds."""

    flavour: Literal["auto", "tensorrt", "rtx"] = "rtx"
    compute_capabilities: tuple[str, ...] = ("8.6",)
    """Empty for this machine's own."""


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
    """[budget]: mIoU each model may lose against PyTorch, in percentage points."""

    fp32: float = 0.01
    fp16: float = 0.05
    int8: float = 1.0


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """[video]: a drive to label."""

    source: str
    """File, folder of images or address; "scenes:frames=96,seed=1" for a generated drive."""
    precision: Precision = "int8"
    max_frames: int | None = None


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """A whole pipeline."""

    network: NetworkConfig
    data: DataConfig
    out: str = "out"
    """Folder for everything that is made."""
    title: str = "Road-scene segmentation"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    calibration: CalibrationConfig = dataclasses.field(default_factory=CalibrationConfig)
    quantize: QuantizeConfig = dataclasses.field(default_factory=QuantizeConfig)
    repair: RepairConfig = dataclasses.field(default_factory=RepairConfig)
    finetune: FinetuneConfig | None = None
    """None for INT8 of the weights as they are."""
    engines: EnginesConfig = dataclasses.field(default_factory=EnginesConfig)
    budget: BudgetConfig = dataclasses.field(default_factory=BudgetConfig)
    video: VideoConfig | None = None
    latency_frames: int = 20
    """Frames each backend is timed on; 0 for no timing."""
    report: bool = True
    """Whether to write report.html."""


def run_pipeline(path: Path) -> dict[str, Any]:
    """Run what a TOML file describes; returns what was made, with the verdict on every model.

    Raises:
        UsageError: if the file is missing or has a wrong setting.
        ParityError: at the end, if a model lost more than its budget; no engine is built from that one.
    """
    return Pipeline(read_settings(path, PipelineConfig), path).run()


class Pipeline:
    """One run of a pipeline; each method is a step, in the order of `run`."""

    def __init__(self, config: PipelineConfig, file: Path) -> None:
        self.config = config
        self.file = file
        self.base = file.resolve().parent
        self.out = self.base / config.out
        self.steps = Steps(self.out)

    def run(self) -> dict[str, Any]:
        """Every step; see `run_pipeline`."""
        self.export()
        if "int8" in self.config.precisions:
            if self.config.repair.equalise:
                self.equalise()
            self.calibrate()
            if self.config.finetune:
                self.finetune(self.config.finetune)
        verdicts = {}
        for precision in self.config.precisions:
            self.quantize(precision)
            verdicts[precision] = self.parity(precision)
        kept = [precision for precision, verdict in verdicts.items() if verdict["within_budget"]]
        plans = [self.build(precision, cc) for precision in kept for cc in self._compute_capabilities]
        if self.config.latency_frames:
            self.latency()
        if self.config.video:
            self.video(self.config.video)
        if self.config.report:
            self.report(plans)
        failed = [precision for precision in verdicts if precision not in kept]
        if failed:
            raise ParityError(" ".join(self._sentence(precision, verdicts[precision]) for precision in failed))
        summary = {precision: {key: verdict[key] for key in SUMMARY} for precision, verdict in verdicts.items()}
        return {"out": self.out, "parity": summary, "engines": [plan.name for plan in plans]}

    def export(self) -> None:
        """Network to FP32 ONNX, compared with PyTorch on frames of the evaluation data."""
        network, data = self.config.network, self.config.data

        def action() -> None:
            export_network(
                network.net,
                str(self.checkpoint),
                self.model("fp32"),
                size=self.size,
                spec_file=self.spec_file,
                data=self._located(data.evaluation),
                split=data.evaluation_split,
            )

        inputs = [self.checkpoint, *([self.spec_file] if self.spec_file else [])]
        settings = {"network": network, "data": self.evaluation.fingerprint}
        self._step("export", settings, inputs, [self.model("fp32")], action)

    def equalise(self) -> None:
        """The FP32 model that INT8 is made from, in place of the exported one."""
        dataset, choice = self.calibration, self._choice(self.config.calibration.count)

        def action() -> None:
            calib.equalise(self.model("fp32"), dataset, out=self.equalised, **choice)

        settings = {**choice, "data": dataset.fingerprint}
        self._step("equalise", settings, [self.model("fp32")], [self.equalised], action)

    def calibrate(self) -> None:
        """Ranges of the FP32 model on calibration images."""
        dataset = self.calibration

        def action() -> None:
            report = calib.calibrate(
                self.calibrated, dataset, out=self.collected, **dataclasses.asdict(self.config.calibration)
            )
            for sentence in report.coverage.warnings:
                log.warning("%s: %s", dataset.name, sentence)

        settings = {"calibration": self.config.calibration, "data": dataset.fingerprint}
        outputs = [self.collected, runtime.manifest_path(self.collected)]
        self._step("calibrate", settings, [self.calibrated], outputs, action)

    def finetune(self, finetune: FinetuneConfig) -> None:
        """The FP32 model that INT8 is made from, and its ranges, in place of those that were calibrated."""
        dataset, calibration = self.calibration, self.config.calibration
        choice = {**dataclasses.asdict(finetune), "seed": calibration.seed, "force": calibration.force}

        def action() -> None:
            calib.finetune(self.calibrated, self.collected, dataset, out=self.tuned, **choice)

        settings = {**choice, "data": dataset.fingerprint}
        outputs = [self.tuned, self.ranges, runtime.manifest_path(self.ranges)]
        self._step("finetune", settings, [self.calibrated, self.collected], outputs, action)

    def quantize(self, precision: Precision) -> None:
        """The typed model of one precision; FP32 is what export wrote."""
        if precision == "fp16":
            self.quantize_fp16()
        elif precision == "int8" and self.searched:
            self.search()
        elif precision == "int8":
            self.quantize_int8()
            if self.config.repair.biases:
                self.correct_bias()

    def quantize_fp16(self) -> None:
        """The FP16 model, if nothing in it overflows on calibration frames."""
        source, out, frames = self.source("fp16"), self.quantized("fp16"), self.calibration

        def action() -> None:
            calib.quantize(source, "fp16", out=out, overflow_data=frames)

        self._step("quantize-fp16", {"overflow_data": frames.fingerprint}, [source], [out], action)

    def quantize_int8(self) -> None:
        """The INT8 model."""
        source, out, rest = self.source("int8"), self.quantized("int8"), self.config.quantize.rest

        def action() -> None:
            calib.quantize(source, "int8", ranges=self.ranges, out=out, rest=rest)

        self._step("quantize-int8", {"rest": rest}, [source, self.ranges], [out], action)

    def search(self) -> None:
        """The INT8 model with layers left float."""
        repair, budget, rest = self.config.repair, self.config.budget.int8, self.config.quantize.rest
        source, out, dataset = self.source("int8"), self.model("int8"), self.calibration

        def action() -> None:
            report = calib.search(
                source,
                self.ranges,
                dataset,
                budget=budget,
                out=out,
                count=repair.layers_count,
                repair=dataset if repair.biases else None,
                rest=rest,
            )
            write_json(self.search_file, msgspec.to_builtins(report, enc_hook=str))

        settings = {"repair": repair, "budget": budget, "rest": rest, "data": dataset.fingerprint}
        outputs = [out, out.with_suffix(".layers.toml"), self.search_file]
        self._step("search", settings, [source, self.ranges], outputs, action)

    def correct_bias(self) -> None:
        """The INT8 model with its layers right on average."""
        dataset, choice = self.calibration, self._choice(self.config.repair.bias_count)
        source, quantized, out = self.source("int8"), self.quantized("int8"), self.model("int8")

        def action() -> None:
            calib.correct_bias(source, quantized, dataset, out=out, **choice)

        settings = {**choice, "data": dataset.fingerprint}
        self._step("correct-bias", settings, [source, quantized], [out], action)

    def parity(self, precision: Precision) -> dict[str, Any]:
        """The verdict on one model against PyTorch, all frames of the evaluation data."""
        out = self.verdict(precision)
        budget = getattr(self.config.budget, precision)

        def action() -> None:
            report = runtime.compare(self.reference, Segmenter.open(self.model(precision)), self.evaluation)
            write_json(out, report.as_json(budget))

        settings = {"budget": budget, "data": self.evaluation.fingerprint}
        self._step(f"parity-{precision}", settings, [self.checkpoint, self.model(precision)], [out], action)
        return read_json(out)

    def build(self, precision: Precision, compute_capability: str | None) -> Path:
        """An engine for one compute capability, or for this machine's GPU."""
        target = f"_sm{compute_capability.replace('.', '')}" if compute_capability else ""
        plan = self.out / f"model_{precision}{target}.plan"
        flavour = self.config.engines.flavour

        def action() -> None:
            build_engine(self.model(precision), plan, flavour=flavour, compute_capability=compute_capability)

        settings = {"flavour": flavour, "compute_capability": compute_capability}
        outputs = [plan, runtime.manifest_path(plan)]
        self._step(f"build-{plan.stem}", settings, [self.model(precision)], outputs, action)
        return plan

    def latency(self) -> None:
        """Time from frame to labels in every backend that runs here."""
        from .timing import time_models

        def action() -> None:
            models = {f"ONNX {p.upper()}": Segmenter.open(self.model(p)) for p in self.config.precisions}
            segmenters = {"PyTorch FP32": self.reference, **models}
            rows = time_models(segmenters, self.evaluation, self.config.latency_frames)
            write_json(self.latency_file, rows)

        inputs = [self.checkpoint, *(self.model(p) for p in self.config.precisions)]
        self._step("latency", {"frames": self.config.latency_frames}, inputs, [self.latency_file], action)

    def video(self, video: VideoConfig) -> None:
        """A labelled drive."""
        from roadseg.runtime.video import run

        from .drives import open_drive

        model = self.model(video.precision)

        def action() -> None:
            source = video.source if ":" in video.source else str(self.base / video.source)
            report = run(Segmenter.open(model), open_drive(source), self.video_file, max_frames=video.max_frames)
            write_json(self.video_report_file, report)

        self._step("video", {"video": video}, [model], [self.video_file, self.video_report_file], action)

    def report(self, plans: list[Path]) -> None:
        """One page that shows it all."""
        from .report import write_report
        from .results import collect

        write_report(collect(self, plans), self.out / "report.html")

    @functools.cached_property
    def checkpoint(self) -> Path:
        """The weights' file."""
        inside = self.base / self.config.network.weights
        return inside if inside.is_file() else find_checkpoint(self.config.network.weights)

    @property
    def spec_file(self) -> Path | None:
        """The ModelSpec of weights that carry none."""
        return self.base / self.config.network.spec if self.config.network.spec else None

    @functools.cached_property
    def size(self) -> Size:
        """Of every model here."""
        return parse_size(self.config.network.size)

    @functools.cached_property
    def calibration(self) -> Dataset:
        """Where calibration images come from."""
        return open_data(self._located(self.config.data.calibration), self.config.data.calibration_split)

    @functools.cached_property
    def evaluation(self) -> Dataset:
        """What every model is measured on."""
        return open_data(self._located(self.config.data.evaluation), self.config.data.evaluation_split)

    @functools.cached_property
    def reference(self) -> Segmenter:
        """PyTorch, at the models' size."""
        return open_network(self.config.network.net, str(self.checkpoint), self.size, self.spec_file)

    @property
    def collected(self) -> Path:
        """What calibration wrote."""
        return self.out / "model.ranges"

    @property
    def ranges(self) -> Path:
        """What the INT8 model's scales are from."""
        return self.tuned.with_suffix(".ranges") if self.config.finetune else self.collected

    @property
    def calibrated(self) -> Path:
        """The FP32 model that ranges are collected on."""
        return self.equalised if self.config.repair.equalise else self.model("fp32")

    @property
    def equalised(self) -> Path:
        """The FP32 model with equalised channels."""
        return self.out / "model_equalised.onnx"

    @property
    def tuned(self) -> Path:
        """The FP32 model with weights that were learned."""
        return self.out / "model_tuned.onnx"

    @property
    def searched(self) -> bool:
        """Whether the INT8 model is one that a search found."""
        return "int8" in self.config.precisions and self.config.repair.layers

    @property
    def search_file(self) -> Path:
        """All that a search for the INT8 model measured."""
        return self.out / "search.json"

    @property
    def latency_file(self) -> Path:
        """Samples of every backend."""
        return self.out / "latency.json"

    @property
    def video_file(self) -> Path:
        """The labelled drive."""
        return self.out / "labelled.mp4"

    @property
    def video_report_file(self) -> Path:
        """How fast the drive was labelled."""
        return self.out / "video.json"

    def verdict(self, precision: Precision) -> Path:
        """What the parity of one precision found."""
        return self.out / f"parity_{precision}.json"

    def source(self, precision: Precision) -> Path:
        """The FP32 model that the one of a precision is made from."""
        if precision != "int8":
            return self.model("fp32")
        return self.tuned if self.config.finetune else self.calibrated

    def quantized(self, precision: Precision) -> Path:
        """What `quantize` writes for one precision."""
        repair = self.config.repair
        corrected = precision == "int8" and repair.biases and not repair.layers
        return self.out / "model_int8_uncorrected.onnx" if corrected else self.model(precision)

    def model(self, precision: Precision) -> Path:
        """The ONNX file of one precision."""
        return self.out / f"model_{precision}.onnx"

    @property
    def _compute_capabilities(self) -> tuple[str | None, ...]:
        return self.config.engines.compute_capabilities or (None,)

    def _choice(self, count: int) -> dict[str, Any]:
        """Which calibration images a step takes."""
        return {"count": count, "seed": self.config.calibration.seed, "force": self.config.calibration.force}

    def _located(self, data: str) -> str:
        """`kind:path` with the path taken from the configuration's folder."""
        kind, _, rest = data.partition(":")
        return data if kind == "scenes" or not rest else f"{kind}:{self.base / rest}"

    def _sentence(self, precision: Precision, verdict: dict[str, Any]) -> str:
        return (
            f"{precision.upper()} lost {verdict['miou_drop']:.2f} mIoU, its budget is "
            f"{getattr(self.config.budget, precision):.2f}."
        )

    def _step(
        self, name: str, settings: dict[str, Any], inputs: list[Path], outputs: list[Path], action: Any
    ) -> None:
        self.steps.run(name, msgspec.to_builtins(settings), inputs, outputs, action)
