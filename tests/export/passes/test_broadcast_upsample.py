import numpy as np
import pytest

from roadseg.export.passes import BroadcastUpsample

SIZES = np.array([2, 3, 5, 7])


def values(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def upsampling(mode="linear", transformation="align_corners"):
    return f'Resize<mode="{mode}", coordinate_transformation_mode="{transformation}">'


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("transformation", ["align_corners", "half_pixel", "asymmetric"])
def test_a_sum_takes_the_pixel_itself(graph, run, ops, mode, transformation):
    model = graph(
        f"""g (float[2,3,1,1] pixel, float[2,3,5,7] x) => (float[2,3,5,7] y)
        {{ up = {upsampling(mode, transformation)}(pixel, , , sizes) y = Add(x, up) }}""",
        sizes=SIZES,
    )
    inputs = values(2, 3, 1, 1), values(2, 3, 5, 7)
    before = run(model, *inputs)
    model, changed = BroadcastUpsample()(model)
    assert changed
    assert ops(model) == ["Add"]
    np.testing.assert_allclose(run(model, *inputs), before, rtol=0, atol=1e-6)


def test_a_concatenation_gets_one_expand(graph, run, ops):
    model = graph(
        f"""g (float[2,3,1,1] pixel, float[2,3,5,7] x) => (float[2,9,5,7] y)
        {{ up = {upsampling()}(pixel, , , sizes) scaled = Mul(up, x) y = Concat<axis=1>(up, scaled, up) }}""",
        sizes=SIZES,
    )
    inputs = values(2, 3, 1, 1), values(2, 3, 5, 7)
    before = run(model, *inputs)
    model, changed = BroadcastUpsample()(model)
    assert changed
    assert sorted(ops(model)) == ["Concat", "Expand", "Mul"]
    np.testing.assert_allclose(run(model, *inputs), before, rtol=0, atol=1e-6)


def test_a_sum_of_two_pixels_keeps_its_size(graph, run, ops):
    model = graph(
        f"""g (float[2,3,1,1] a, float[2,3,1,1] b) => (float[2,3,5,7] y)
        {{ p = {upsampling()}(a, , , sizes) q = {upsampling()}(b, , , sizes) y = Add(p, q) }}""",
        sizes=SIZES,
    )
    inputs = values(2, 3, 1, 1), values(2, 3, 1, 1)
    before = run(model, *inputs)
    model, _ = BroadcastUpsample()(model)
    assert sorted(ops(model)) == ["Add", "Expand"]
    np.testing.assert_allclose(run(model, *inputs), before, rtol=0, atol=1e-6)


def test_the_batch_stays_open(graph, run, ops):
    model = graph(
        f"""g (float[n,3,1,1] pixel) => (float[n,3,5,7] y)
        {{ n = Shape<start=0, end=2>(pixel) sizes = Concat<axis=0>(n, hw)
           y = {upsampling()}(pixel, , , sizes) }}""",
        hw=np.array([5, 7]),
    )
    model, changed = BroadcastUpsample()(model)
    assert changed
    assert "Expand" in ops(model)
    assert run(model, values(4, 3, 1, 1)).shape == (4, 3, 5, 7)


def test_a_row_of_two_pixels_is_still_interpolated(graph, ops):
    model = graph(
        f"g (float[2,3,1,2] x) => (float[2,3,5,7] y) {{ y = {upsampling()}(x, , , sizes) }}", sizes=SIZES
    )
    model, changed = BroadcastUpsample()(model)
    assert not changed
    assert ops(model) == ["Resize"]
