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


def test_a_node_gets_the_mean_of_its_share_of_every_position():
    torch.manual_seed(0)
    reason = GlobalReasoning(8, 4).eval()
    torch.nn.init.ones_(reason.norm.weight)
    x = torch.randn(1, 8, 3, 5)
    states, shares = reason.embed(x)[0].flatten(1), reason.project(x)[0].flatten(1)  # (8, 15), (4, 15)
    graph = torch.stack([torch.stack([(state * share).mean() for share in shares]) for state in states])[None]
    graph = torch.relu(graph + reason.over_nodes(graph.transpose(1, 2)).transpose(1, 2))
    expected = x + reason.norm(reason.extend((reason.over_states(graph)[0] @ shares).reshape(1, 8, 3, 5)))
    assert torch.allclose(reason(x), expected, atol=1e-5)
