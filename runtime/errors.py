"""Everything roadseg raises on purpose. The message of each says what was expected, what came, what to do."""

from __future__ import annotations


class RoadsegError(Exception):
    """Base of all; the command line prints its message and leaves with `exit_code`."""

    exit_code = 1


class UsageError(RoadsegError):
    """A command or function was called with arguments that cannot be meant."""

    exit_code = 2


class MissingDependencyError(RoadsegError):
    """An optional library is not installed or cannot work on this machine."""


class SpecError(RoadsegError):
    """A frame, or a model's input or output, does not match its ModelSpec."""


class DataError(RoadsegError):
    """A data set, image, label map or video is missing, unreadable or inconsistent."""


class CheckpointError(RoadsegError):
    """A checkpoint cannot be read or does not fit its network."""


class ArtifactError(RoadsegError):
    """A file is corrupt, stale, edited, or not what its manifest says."""


class ExportError(RoadsegError):
    """A network cannot be turned into a correct ONNX model."""


class CalibrationError(RoadsegError):
    """Ranges cannot be collected, or do not belong to the model they are used with."""


class BuildError(RoadsegError):
    """TensorRT's parser or builder refused a model; carries its own messages."""


class EngineError(RoadsegError):
    """An engine cannot be opened or run on this machine."""


class ParityError(RoadsegError):
    """A candidate is further from its reference than the budget allows."""

    exit_code = 3
