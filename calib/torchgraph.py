"""A float32 ONNX model as a PyTorch module whose weights can be tuned.

It is read node by node, so that its tensors keep their names: what is learned goes back into the same file, and
somebody may change tensors on their way, as quantisation does (`rounding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import onnx
import onnx.inliner
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor, nn

from roadseg.runtime import CalibrationError, RoadsegError

from .graph import WEIGHTED, Graph, lift_constants, title
from .logits import find_logits
from .ranges import nodes_towards
from .torchops import Attributes, operators


class Rounding(Protocol):
    """What becomes of tensors on their way through a model."""

    def activation(self, name: str, values: Tensor) -> Tensor:
        """What the readers of a tensor get."""

    def weights(self, output: str, name: str, values: Tensor) -> Tensor:
        """What becomes of a factor of the layer that makes `output`, if it is the layer's weights."""


class Exact:
    """Nothing becomes of them."""

    def activation(self, _: str, values: Tensor) -> Tensor:
        """What the readers of a tensor get."""
        return values

    def weights(self, _: str, __: str, values: Tensor) -> Tensor:
        """What becomes of a factor of the layer that makes `output`, if it is the layer's weights."""
        return values


class TorchGraph(nn.Module):
    """The part of a model that computes `outputs`.

    Weights and biases of its layers are parameters, other constants buffers. Operators that are functions inside
    the model are taken apart; their own constants are not tuned.
    """

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str]) -> None:
        """Take a model over.

        Args:
            model: float32, its constants lifted, see `load_float_model`; it is left as it is.
            outputs: tensors to compute; those of the model with functions taken apart, see `inlined`.

        Raises:
            CalibrationError: if it has operators that are not known here; it names them.
        """
        super().__init__()
        self.input = model.graph.input[0].name
        self.outputs = tuple(outputs)
        self.tuned = tuned_constants(Graph(model))
        """Names of the constants that are parameters."""
        whole = inlined(model)
        nodes = nodes_towards(list(whole.graph.node), set(outputs))
        refuse_unknown(nodes)
        self._held: dict[str, str] = {}
        read = {name for node in nodes for name in node.input}
        for tensor in whole.graph.initializer:
            if tensor.name in read:
                self._hold(tensor.name, torch.from_numpy(numpy_helper.to_array(tensor).copy()))
        self._steps = [step for node in nodes if not self._fold(step := Step(node))]
        self._release()

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Parameters by the name of the constant they came from."""
        return {name: getattr(self, self._held[name]) for name in self.tuned if name in self._held}

    def forward(self, fed: Tensor, rounding: Rounding | None = None) -> tuple[Tensor, ...]:
        """Compute the outputs.

        Args:
            fed: what the model takes, frames or images, see `ranges.feed`.
            rounding: what becomes of tensors for those that read them; outputs are what they were before.
        """
        rounding = rounding or Exact()
        known = {name: getattr(self, attribute) for name, attribute in self._held.items()}
        known[self.input] = rounding.activation(self.input, fed)
        found: dict[str, Tensor] = {name: known[name] for name in self.outputs if name in known}
        for step in self._steps:
            inputs = [known[name] if name else None for name in step.inputs]
            if step.node.op_type in WEIGHTED:
                for i, name in enumerate(step.inputs[:2]):
                    inputs[i] = rounding.weights(step.outputs[0], name, known[name])
            for name, values in zip(step.outputs, step(inputs), strict=False):
                found |= {name: values} if name in self.outputs else {}
                known[name] = rounding.activation(name, values)
            for name in step.last_reads:
                del known[name]
        return tuple(found[name] for name in self.outputs)

    def _hold(self, name: str, values: Tensor) -> None:
        # Names of tensors have dots and slashes, which those of parameters may not have.
        self._held[name] = attribute = f"constant_{len(self._held)}"
        if name in self.tuned:
            self.register_parameter(attribute, nn.Parameter(values))
        else:
            self.register_buffer(attribute, values, persistent=False)

    def _fold(self, step: Step) -> bool:
        """Compute a node that depends on nothing but untuned constants once for all."""
        if any(name and (name not in self._held or name in self.tuned) for name in step.inputs):
            return False
        with torch.no_grad():
            results = step([getattr(self, self._held[name]) if name else None for name in step.inputs])
        for name, values in zip(step.outputs, results, strict=False):
            self._hold(name, values)
        return True

    def _release(self) -> None:
        """Let every step forget the tensors that it is the last to read."""
        later = {*self.outputs, *self._held}
        for step in reversed(self._steps):
            names = {*step.inputs, *step.outputs} - {"", self.input}
            step.last_reads = tuple(sorted(names - later))
            later |= names


class Step:
    """A node, ready to run."""

    def __init__(self, node: NodeProto) -> None:
        self.node = node
        self.inputs = tuple(node.input)
        self.outputs = tuple(node.output)
        self.attributes = attributes_of(node)
        self.operator = operators()[node.op_type]
        self.last_reads: tuple[str, ...] = ()
        """Tensors that nothing reads any more after this."""

    def __call__(self, inputs: Sequence[Tensor | None]) -> Sequence[Tensor]:
        """The node's outputs.

        Raises:
            CalibrationError: naming the node, if PyTorch or our operators refuse it.
        """
        try:
            result = self.operator(self.attributes, inputs)
        except (RoadsegError, RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
            raise CalibrationError(f"the node {title(self.node)} does not run in PyTorch: {error}") from error
        return (result,) if isinstance(result, Tensor) else tuple(result)


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions taken apart; tensors outside of them keep their names."""
    whole = onnx.inliner.inline_local_functions(model)
    lift_constants(whole)
    return whole


def tuned_constants(graph: Graph) -> frozenset[str]:
    """Weights and biases of a model's layers.

    A matrix that is multiplied along a map pools or interpolates; it is no weight.
    """
    layers = [node for node in graph.nodes if graph.has_weights(node) and not graph.resamples(node)]
    names = {name for node in layers for name in node.input if name in graph.constants}
    return frozenset(name for name in names if graph.is_float(name))


def logits_of(model: onnx.ModelProto) -> str:
    """The tensor with a model's logits, before they are brought to the size of the frame where they are.

    Raises:
        CalibrationError: if the labels are not the largest of several classes.
    """
    name = find_logits(inlined(model))
    if name is None:
        raise CalibrationError(
            "this model's labels do not come from an ArgMax over classes, so there are no logits to learn "
            "from. Export the network with `roadseg export`."
        )
    return name


def refuse_unknown(nodes: Sequence[NodeProto]) -> None:
    """Raise CalibrationError if some nodes' operators are not known here."""
    unknown = sorted({node.op_type for node in nodes if node.domain or node.op_type not in operators()})
    unknown += sorted({f"{node.op_type} with its indices" for node in nodes if _more_than_one_result(node)})
    if unknown:
        raise CalibrationError(
            f"fine-tuning does not know the operator {', '.join(unknown)}; "
            "calibrate and quantize the model as it is, or keep layers float with a --budget."
        )


def _more_than_one_result(node: NodeProto) -> bool:
    return node.op_type in ("MaxPool", "Dropout", "LayerNormalization") and any(node.output[1:])


def attributes_of(node: NodeProto) -> Attributes:
    """A node's attributes as Python values, tensors as PyTorch's, and how many outputs it has."""
    found = {a.name: _value_of(a) for a in node.attribute}
    return {"outputs": len(node.output), **found}


def _value_of(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return torch.from_numpy(numpy_helper.to_array(value).copy())
    return value
