"""What callers and the command line rely on of the errors."""

from roadseg import runtime
from roadseg.runtime import errors


def test_every_error_is_one_of_ours_and_at_the_front_door():
    for name, kind in vars(errors).items():
        if isinstance(kind, type):
            assert issubclass(kind, errors.RoadsegError)
            assert getattr(runtime, name) is kind


def test_wrong_usage_leaves_with_2_parity_with_3_and_the_rest_with_1():
    codes = {kind.__name__: kind.exit_code for kind in errors.RoadsegError.__subclasses__()}
    assert codes.pop("UsageError") == 2
    assert codes.pop("ParityError") == 3
    assert set(codes.values()) == {1}
