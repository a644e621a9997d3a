"""Network to checked ONNX model."""

from .check import lint as lint
from .export import ExportReport as ExportReport
from .export import convert as convert
from .export import export as export
