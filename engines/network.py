"""What both TensorRT libraries have in common: ONNX in, messages out, a serialised engine at the end."""

from __future__ import annotations

import dataclasses
from typing import Any

from roadseg.runtime import BuildError, waiting
from roadseg.runtime.cuda import Gpu
from roadseg.runtime.messages import in_plain_words, logger
from roadseg.runtime.plan import Dialect, Flavour, OpRoad, PlanDetails, Precision, TensorInfo

from .model import Model
from .settings import Settings

OUT_OF_MEMORY = ("could not find any implementation", "out of memory", "outofmemory")
"""How TensorRT says that memory ran out; the first of them names a layer instead
(https://github.com/Jonah-May-OSS/wyoming-whisper-trt/pull/1049)."""

DTYPES = {"UINT8": "uint8", "FLOAT": "float32", "HALF": "float16"}
"""What frames, labels, images and logits may be: numpy's name by TensorRT's. `tensorrt.nptype` says the same, but
that of TensorRT 8.5 fails with numpy 1.24 and later."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a builder made."""

    data: bytes
    """The serialised engine."""
    details: PlanDetails


class Network:
    """A model inside TensorRT: parsed, with a builder's configuration to be filled in.

    Everything belongs to one `builder`; the parser is kept because it owns the weights.

    Raises:
        BuildError: if TensorRT does not start or its parser refuses the model.
    """

    def __init__(self, library: Any, flavour: Flavour, model: Model, flags: int = 0) -> None:
        self.library = library
        self.flavour = flavour
        self.model = model
        self.logger = logger(library)
        self.logger.take()
        self.builder = self._start()
        self.network = self.builder.create_network(flags)
        self._parser = self._parse()
        self.config = self.builder.create_builder_config()
        # TF32 keeps 10 of 23 bits; whoever wants that asks for FP16.
        self.config.clear_flag(library.BuilderFlag.TF32)

    @property
    def title(self) -> str:
        """Name and version of the library."""
        return f"{self.flavour.title} {self.library.__version__}"

    def build(
        self,
        settings: Settings,
        *,
        compute_capabilities: tuple[str, ...],
        precision: Precision,
        dialect: Dialect,
        roads: dict[str, OpRoad],
        gpu: Gpu | None = None,
    ) -> Plan:
        """Compile the network; what is not in `settings` is only recorded.

        Raises:
            BuildError: with TensorRT's own messages.
        """
        if settings.workspace_bytes is not None:
            self.config.set_memory_pool_limit(self.library.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
        if self.model.batch is None:
            self._open_batch(settings.max_batch)
        details = PlanDetails(
            flavour=self.flavour.name,
            version=self.library.__version__,
            compute_capabilities=compute_capabilities,
            gpu=gpu.name if gpu else "",
            driver=gpu.driver if gpu else "",
            precision=precision,
            dialect=dialect,
            batch=self.model.batch or settings.max_batch,
            input=self._describe(self.network.get_input(0)),
            output=self._describe(self.network.get_output(0)),
            workspace_bytes=settings.workspace_bytes,
            provenance=self.model.provenance,
            roads=roads,
        )
        return Plan(self._compile(), details)

    def _compile(self) -> bytes:
        with waiting(f"build {self.model.path.name}"):
            data = self.builder.build_serialized_network(self.network, self.config)
        if data is None:
            raise BuildError(build_failure(self.title, str(self.model.path), self.logger.take()))
        return bytes(data)

    def _start(self) -> Any:
        try:
            return self.library.Builder(self.logger)
        except TypeError as error:  # pybind11's way of saying that createInferBuilder returned null
            raise BuildError(f"{self.title} does not start here: {in_plain_words(self.logger.take())}") from error

    def _parse(self) -> Any:
        parser = self.library.OnnxParser(self.network, self.logger)
        if not parser.parse(self.model.data):
            problems = [self._problem(parser.get_error(i)) for i in range(parser.num_errors)]
            said = " ".join(dict.fromkeys(problems)) or in_plain_words(self.logger.take())
            raise BuildError(f"{self.title} cannot build {self.model.path}: {said}")
        return parser

    def _problem(self, error: Any) -> str:
        operator, name = locate(error, self.model)
        where = f"op {operator}" + (f" (node {name!r})" if name else "") if operator else "the model"
        reason = in_plain_words([error.desc()])
        if error.code() == self.library.ErrorCode.UNSUPPORTED_NODE or not reason or "Plugin not found" in reason:
            # TensorRT speaks of a plugin for any op it lacks (https://github.com/onnx/onnx-tensorrt/issues/800).
            return f"{where} is not supported."
        return f"{where}: {reason}"

    def _open_batch(self, batch: int) -> None:
        tensor = self.network.get_input(0)
        shape = tuple(tensor.shape)[1:]
        profile = self.builder.create_optimization_profile()
        profile.set_shape(tensor.name, (1, *shape), (batch, *shape), (batch, *shape))
        self.config.add_optimization_profile(profile)

    def _describe(self, tensor: Any) -> TensorInfo:
        if tensor.dtype.name not in DTYPES:
            raise BuildError(
                f"{self.model.path}: {tensor.name} is {tensor.dtype.name}, but inputs and outputs of a plan are "
                f"one of {', '.join(DTYPES.values())}. Export the network with `roadseg export`."
            )
        return TensorInfo(tensor.name, DTYPES[tensor.dtype.name], tuple(tensor.shape))


def locate(error: Any, model: Model) -> tuple[str, str]:
    """Op type and node name a parser's error is about, "" where it is about none."""
    if hasattr(error, "node_name"):
        return error.node_operator(), error.node_name()
    # TensorRT 8 tells only the node's place in the graph, -1 for none.
    if error.node() < 0:
        return "", ""
    node = model.graph.node[error.node()]
    return node.op_type, node.name


def build_failure(title: str, model: str, messages: list[str]) -> str:
    """Say why a builder returned nothing, and what to do where that is known."""
    said = in_plain_words(messages) or "It does not say why."
    text = f"{title} cannot build {model}: {said}"
    if any(sign in said.lower() for sign in OUT_OF_MEMORY):
        text += (
            " This is how TensorRT says that memory ran out: close what else uses the GPU, allow less workspace, "
            "or export the model at a smaller size or batch."
        )
    return text
