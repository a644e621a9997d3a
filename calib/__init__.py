"""ONNX model to ranges, and ranges to a typed ONNX model."""
