"""Typed ONNX model to TensorRT engine with manifest."""
