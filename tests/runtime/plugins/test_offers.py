import dataclasses

import pytest

from roadseg.runtime import BuildError
from roadseg.runtime.plugins import Kernel, Launch, TensorType, check_shapes, compress, offer, offered

LAUNCH = Launch(
    op="Twice",
    inputs=(TensorType("float16", (1, 3, 2, 4)),),
    output=TensorType("float16", (1, 3, 2, 4)),
    cast_to="float16",
    entry="twice",
    ptx_sha256="abcdef" + "0" * 58,
    grid=(8, 1, 1),
    threads=128,
    shared_bytes=1024,
    integers=(24,),
)


def test_kernels_of_the_same_code_are_told_apart_and_found_again():
    first = Kernel(LAUNCH, compress("// twice"))
    second = dataclasses.replace(first, launch=dataclasses.replace(LAUNCH, grid=(4, 1, 1)))
    numbers = offer(first), offer(second)
    assert numbers == (0xABCDEF, 0xABCDF0)
    assert (offered(numbers[0]), offered(numbers[1])) == (first, second)
    assert (offer(first), offer(second)) == numbers


def test_a_number_that_was_not_offered_is_refused():
    with pytest.raises(BuildError, match="no kernel 1 was offered in this process"):
        offered(1)


def test_inputs_of_other_shapes_are_refused():
    kernel = Kernel(LAUNCH, compress("// twice"))
    check_shapes(kernel, [(1, 3, 2, 4)])
    with pytest.raises(BuildError, match=r"launched for inputs of \[\(1, 3, 2, 4\)\]; it gets \[\(2, 3, 2, 4\)\]"):
        check_shapes(kernel, [(2, 3, 2, 4)])
