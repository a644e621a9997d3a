"""Typed ONNX model to TensorRT engine with manifest."""

from .build import build as build
from .settings import Settings as Settings
