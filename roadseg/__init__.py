"""From a PyTorch road-scene segmentation network to a checked TensorRT engine."""

__version__ = "0.1.0"
