"""Typed ONNX model to TensorRT engine with manifest."""

from .build import build as build
from .build import wanted_kernels as wanted_kernels
from .settings import Settings as Settings
