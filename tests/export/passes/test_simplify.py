import numpy as np

from roadseg.export.passes import Simplify


def test_what_is_known_at_export_is_computed(graph, run, ops):
    model = graph(
        """g (float[n,3,4,4] x) => (float[n,3,4,4] y) {
            like = CastLike(one, x)
            three = Shape<start=1, end=2>(x)
            bias = Expand(like, three)
            y = Conv(x, w, bias)
        }""",
        one=np.array(1, np.int64),
        w=np.eye(3, dtype=np.float32)[:, :, None, None],
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    model, changed = Simplify()(model)
    assert changed
    assert ops(model) == ["Conv"]
    np.testing.assert_allclose(run(model, x), x + 1, rtol=0, atol=1e-6)


def test_shapes_are_known_afterwards(graph):
    model, _ = Simplify()(graph("g (float[1,3,4,5] x) => (float[1,3,4,5] y) { a = Relu(x) y = Exp(a) }"))
    assert list(model.graph[0].outputs[0].shape) == [1, 3, 4, 5]
