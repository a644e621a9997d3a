import pytest

from roadseg.runtime.messages import in_plain_words, logger

# As TensorRT-RTX 1.7.1 writes them.
CONCAT = """Invalid Node - cc
ITensor::getDimensions: Error Code 4: Internal Error (cc: all concat input tensors must have the same dimensions \
except on the concatenation axis (1), but dimensions mismatched at index 2. In mergeInputDims at \
/_src/optimizer/api/layers/concatenationLayer.cpp:75)
[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at \
/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient))"""


def test_a_fact_is_freed_of_error_codes_and_source_lines():
    assert in_plain_words([CONCAT]) == (
        "cc: all concat input tensors must have the same dimensions except on the concatenation axis (1), "
        "but dimensions mismatched at index 2."
    )


@pytest.mark.parametrize(
    "assertion",
    [
        '(antialias == 0) && "Antialiasing is not supported currently."',
        "Assertion failed: antialias == 0: Antialiasing is not supported currently.",
    ],
)
def test_an_assertion_is_only_its_reason(assertion):
    assert in_plain_words([assertion]) == "Antialiasing is not supported currently."


def test_what_repeats_is_said_once():
    assert in_plain_words(["no memory", "no memory", "no profile."]) == "no memory. no profile."


def test_nothing_is_left_of_noise():
    assert in_plain_words(["false", "ModelImporter.cpp:142: --- Begin node ---\nInvalid Node - cc"]) == ""


def test_a_logger_keeps_warnings_and_errors_and_prints_nothing(capfd):
    library = pytest.importorskip("tensorrt_rtx")
    log = logger(library)
    log.take()
    log.log(library.ILogger.INFO, "loaded")
    log.log(library.ILogger.WARNING, "slow")
    log.log(library.ILogger.INTERNAL_ERROR, "broken")
    assert log.take() == ["slow", "broken"]
    assert log.take() == []
    assert capfd.readouterr() == ("", "")


def test_a_library_has_one_logger():
    library = pytest.importorskip("tensorrt_rtx")
    assert logger(library) is logger(library)
