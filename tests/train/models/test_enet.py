import torch
import torch.nn.functional as F
from torch import nn

from roadseg.export import convert
from roadseg.runtime import ModelSpec
from roadseg.train.models import build, enet, randomise


def silence(branch):
    """Make a branch answer 0."""
    norm = next(module for module in reversed([*branch.modules()]) if isinstance(module, nn.BatchNorm2d))
    nn.init.zeros_(norm.weight)


def test_what_is_left_of_a_window_returns_to_where_its_maximum_was():
    down, up = enet.DownBottleneck(4, 6, dropout=0).eval(), enet.UpBottleneck(6, 4).eval()
    silence(down.branch)
    silence(up.branch)
    with torch.no_grad():  # of six channels, the first four are added up to the first, the others are lost
        up.shortcut[0].weight.zero_()[0, :4] = (1 + up.shortcut[1].eps) ** 0.5
    x = torch.zeros(1, 4, 2, 4)
    x[0, 0] = torch.tensor([[1.0, 2, 9, 7], [4, 3, 8, 9]])
    x[0, 3] = torch.tensor([[0.0, 0, 0, 0], [5, 0, 0, 6]])
    pooled, places = down(x)
    assert pooled[0].tolist() == [[[4, 9]], [[0, 0]], [[0, 0]], [[5, 6]], [[0, 0]], [[0, 0]]]
    assert places[0, 0].tolist() == [[4, 2]]
    torch.testing.assert_close(up(pooled, places)[0, 0], torch.tensor([[0.0, 0, 15, 0], [9, 0, 0, 0]]))


def test_pytorchs_own_unpooling_gives_the_same_logits(monkeypatch):
    torch.manual_seed(0)
    net = build("enet", 19)
    images = torch.randn(2, 3, 64, 96)
    randomise(net, images)
    with torch.inference_mode():
        logits = net(images)
        monkeypatch.setattr(
            enet, "MAX_POOL_INDICES", lambda x, k, s, p: F.max_pool2d(x, k, s, p, 1, False, True)[1]
        )
        monkeypatch.setattr(enet, "MAX_UNPOOL", lambda x, i, size, k, s, p: F.max_unpool2d(x, i, k, s, p, size))
        assert torch.equal(net(images), logits)
    assert logits.std() > 0.1


def test_unpooling_is_one_node_whose_definition_is_in_the_file():
    class RoundTrip(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Conv2d(3, 4, 1)
            self.down, self.up = enet.DownBottleneck(4, 8, dropout=0), enet.UpBottleneck(8, 4)

        def forward(self, x):
            return self.up(*self.down(self.mix(x)))

    spec = ModelSpec("there_and_back", 16, 24, classes=("a", "b", "c", "d"), io="tensor")
    model = convert(RoundTrip().eval(), spec, batch=1)
    own = [node.op_type for node in model.graph.node if node.domain == "roadseg"]
    assert sorted(own) == ["MaxPoolIndices", "MaxUnpool2d"] == sorted(f.name for f in model.functions)
