"""A custom operator: one definition with the faces that PyTorch, ONNX and a GPU see."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from roadseg.runtime import UsageError
from roadseg.runtime.onnxfile import CUSTOM_DOMAIN

from .kernel import Kernel
from .standard_names import STANDARD_NAMES

if TYPE_CHECKING:
    import onnx

AttributeType = Literal["INT", "FLOAT", "STRING", "INTS", "FLOATS"]
Attributes = Mapping[str, int | float | str | Sequence[int] | Sequence[float]]
"""Of an ONNX node."""
TENSORS = [f"tensor({kind})" for kind in ("float16", "float", "double", "uint8", "int32", "int64")]


class Op:
    """An operator that ONNX lacks, or that runtimes compute better as one. All faces compute the same.

    Calling it computes it in PyTorch: by the reference, or by the kernel on a GPU. Under autocast its inputs are
    rounded to autocast's type first, as a convolution's are, and nothing else is. `roadseg export` writes the call
    as one node of the domain "roadseg", and the body beside it as a model-local function.

    ONNX is imported where a node is written: networks are trained without it.
    """

    def __init__(
        self,
        name: str,
        reference: Callable[..., Tensor],
        body: str,
        *,
        full_frame: Callable[[torch.dtype], tuple[Any, ...]],
        attributes: Mapping[str, AttributeType] | None = None,
        convert: Callable[..., Attributes] | None = None,
        revert: Callable[..., Sequence[Any]] | None = None,
        kernel: Kernel | None = None,
        kernel_types: Collection[torch.dtype] = (torch.float16, torch.float32),
        as_good: Callable[..., Tensor] | None = None,
    ) -> None:
        """Register an operator with PyTorch, as `roadseg::<name of reference>`.

        Args:
            name: ONNX op type, and name of the TensorRT plugin.
            reference: in PyTorch's own operators, annotated, and free of side effects. Tensors come first; they
                are the node's inputs.
            body: nodes in ONNX's text syntax that compute `y` from inputs called as in `reference`. `@name` is an
                attribute of the node.
            full_frame: its arguments in a network that sees 1024x2048 pixels, for a floating-point type and on the
                meta device: what kernels are compiled for and costs are counted on.
            attributes: of the node, by name.
            convert: from the other arguments of `reference` to attributes; without it these are the attributes.
            revert: from attributes back to those arguments, in order; given with `convert`.
            kernel: what computes it on a GPU; without it the reference does.
            kernel_types: of floating-point inputs that PyTorch leaves to the kernel: not those it has no code for,
                and not those in which the reference is faster.
            as_good: for an operator that chooses by comparison, and whose answer a rounding error may thus change
                altogether. Called with an answer, an error, and the arguments of `reference`, it tells element by
                element whether the answer could be right if the first argument were off by the error.

        Raises:
            UsageError: if `name` is that of a standard ONNX operator.
        """
        refuse_standard_name(name)
        self.name = name
        self.reference = reference
        self.body = body
        self.full_frame = full_frame
        self.attributes: dict[str, AttributeType] = dict(attributes or {})
        self.kernel = kernel
        self.kernel_types = frozenset(kernel_types)
        self.as_good = as_good
        self._convert = convert
        self._revert = revert
        self._signature = inspect.signature(reference, eval_str=True)
        self.inputs = tuple(p.name for p in self._signature.parameters.values() if p.annotation is Tensor)
        self.torch = torch.library.custom_op(f"{CUSTOM_DOMAIN}::{reference.__name__}", reference, mutates_args=())
        self.torch.register_fake(reference)
        self.torch.register_autograd(self._backward, setup_context=remember)
        if kernel is not None:
            self.torch.register_kernel("cuda")(self.on_gpu)

    def __call__(self, *args: Any, **named: Any) -> Tensor:
        device = next(x.device.type for x in (*args, *named.values()) if isinstance(x, Tensor))
        kind = autocast_type(device)
        if kind is not None:
            with without_autocast(device):
                return self(*(rounded(x, kind) for x in args), **{k: rounded(x, kind) for k, x in named.items()})
        y: Tensor = self.torch(*args, **named)
        return y

    def on_gpu(self, *args: Any) -> Tensor:
        """What PyTorch calls with tensors on a GPU."""
        kinds = {x.dtype for x in args if isinstance(x, Tensor) and x.is_floating_point()}
        if self.kernel is None or not kinds <= self.kernel_types:
            return self.reference(*args)
        return self.kernel(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Op:
        """Itself: a network that is copied goes on calling the operator that PyTorch knows."""
        return self

    def function(self, opset: int) -> onnx.FunctionProto:
        """The model-local function, for models of an opset of the default domain."""
        import onnx

        attributes = f"<{', '.join(self.attributes)}>" if self.attributes else ""
        return onnx.parser.parse_function(
            f'<domain: "{CUSTOM_DOMAIN}", opset_import: ["": {opset}]>\n'
            f"{self.name} {attributes} ({', '.join(self.inputs)}) => (y) {{ {self.body} }}"
        )

    def arguments(self, *args: Any, **named: Any) -> tuple[list[Any], Attributes]:
        """Inputs and attributes of the node for a call with these arguments."""
        bound = self._signature.bind(*args, **named)
        bound.apply_defaults()
        inputs = [bound.arguments.pop(name) for name in self.inputs]
        return inputs, self._convert(**bound.arguments) if self._convert else bound.arguments

    def call(self, inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Any, ...]:
        """Arguments of the call that a node stands for: `arguments`, undone."""
        if self._revert:
            return *inputs, *self._revert(**attributes)
        return self._signature.bind(*inputs, **attributes).args

    def translation(self) -> Callable[..., Any]:
        """What writes a call into the graph that torch's exporter is making."""
        from onnxscript import values

        def write(*args: Any, **named: Any) -> Any:
            inputs, attributes = self.arguments(*args, **named)
            return values.Op(values.Opset(CUSTOM_DOMAIN, 1), self.name, self._schema())(*inputs, **attributes)

        # The exporter reads from these which arguments are tensors: those without an annotation.
        write.__signature__ = self._signature  # type: ignore[attr-defined]
        write.__annotations__ = {
            name: p.annotation for name, p in self._signature.parameters.items() if name not in self.inputs
        }
        return write

    def count_flops(self, *args: Any, **_: Any) -> int:
        """Of a call with inputs of these shapes: what PyTorch counts in the reference, whatever computes it."""
        from torch.utils.flop_counter import FlopCounterMode

        kinds = [x.dtype for x in self.full_frame(torch.float32) if isinstance(x, Tensor)]
        inputs = [torch.empty(size, dtype=kind, device="meta") for size, kind in zip(args, kinds, strict=False)]
        with FlopCounterMode(display=False) as counter:
            self.reference(*inputs, *args[len(inputs) :])
        total: int = counter.get_total_flops()
        return total

    def _schema(self) -> onnx.defs.OpSchema:
        import onnx

        schema = onnx.defs.OpSchema
        kinds = {name: getattr(schema.AttrType, kind) for name, kind in self.attributes.items()}
        return schema(
            self.name,
            CUSTOM_DOMAIN,
            1,
            inputs=[schema.FormalParameter(name, f"T{i}") for i, name in enumerate(self.inputs)],
            outputs=[schema.FormalParameter("y", "T0")],  # torch's exporter knows better, and writes that
            type_constraints=[(f"T{i}", TENSORS, "") for i in range(len(self.inputs))],
            attributes=[schema.Attribute(name, kind) for name, kind in kinds.items()],
        )

    def _backward(self, context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The reference once more, with its gradient: a kernel keeps nothing of what it computed on its way."""
        args = list(context.others)
        tensors = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in context.saved_tensors]
        wanted = [tensor for tensor in tensors if tensor.requires_grad]
        with torch.enable_grad(), without_autocast(gradient.device.type):
            found = iter(torch.autograd.grad(self.reference(*tensors, *args), wanted, gradient))
        return (*(next(found) if t.requires_grad else None for t in tensors), *[None] * len(args))


def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep the arguments of a call for its gradient."""
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    ctx.others = [value for value in inputs if not isinstance(value, Tensor)]
    if not output.is_floating_point():
        ctx.mark_non_differentiable(output)


def autocast_type(device: str) -> torch.dtype | None:
    """What a convolution on a device rounds its inputs to at present, if to anything."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def rounded(x: Any, kind: torch.dtype) -> Any:
    """`x` in another type if autocast would see it that way: a tensor of floats, and not of doubles."""
    takes_part = isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64
    return x.to(kind) if takes_part else x


def without_autocast(device: str) -> contextlib.AbstractContextManager[None]:
    """Where references compute in the types that they name."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def at_least_float(x: Tensor) -> Tensor:
    """`x` in FP32, or in FP64 where it is that: what references compute in, to round once at the end."""
    return x if x.dtype == torch.float64 else x.float()


def refuse_standard_name(name: str) -> None:
    """Raise UsageError where ONNX has an operator called `name`.

    TensorRT's parser looks at the op type alone and not at the domain: it would build the standard operator
    without a word.
    """
    if name in STANDARD_NAMES:
        raise UsageError(
            f"{name} is the name of a standard ONNX operator. TensorRT ignores a node's domain and would compute "
            "that one; give the operator another name."
        )
