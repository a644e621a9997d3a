import torch

from roadseg.train.models.dgcnet import PositionGraph


def test_positions_exchange_what_their_embeddings_say_and_each_keeps_itself():
    torch.manual_seed(0)
    graph = PositionGraph(4).eval()
    x = torch.randn(1, 4, 2, 3)
    query, key, value = (embed(x)[0].flatten(1) for embed in (graph.query, graph.key, graph.value))  # (2, 6)
    mixed = torch.zeros(2, 6)
    for out in range(2):
        for channel in range(2):
            edges = torch.exp(query[channel] @ value.T)
            mixed[out] += edges[out] / edges.sum() * key[channel]
    updated = graph.out(graph.update(mixed.reshape(1, 2, 2, 3)))
    assert torch.allclose(graph(x), torch.relu(updated + x), atol=1e-6)
