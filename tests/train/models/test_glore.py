import torch

from roadseg.train.models.glore import GlobalReasoning


def test_reasoning_adds_nothing_at_first():
    x = torch.randn(1, 8, 3, 5)
    assert torch.equal(GlobalReasoning(8, 4).eval()(x), x)


def test_the_graph_does_not_depend_on_how_often_the_same_positions_occur():
    torch.manual_seed(0)
    reason = GlobalReasoning(8, 4).eval()
    torch.nn.init.ones_(reason.norm.weight)
    x = torch.randn(1, 8, 3, 5)
    assert torch.allclose(reason(x.repeat(1, 1, 2, 2)), reason(x).repeat(1, 1, 2, 2), atol=1e-5)
