"""Network to checked ONNX model."""
