"""Networks from outside, as `--net small_nets:branched` finds them; small, and without dropout."""

from torch import nn

from roadseg.train.models.outputs import Outputs

CLASSES = 19


def plain():
    """Logits at a half, without batch norm."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, CLASSES, 1)
    )


class Branched(nn.Module):
    """Batch norms, an auxiliary head and a boundary branch."""

    align_corners = False

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head, self.aux, self.edge = nn.Conv2d(16, CLASSES, 1), nn.Conv2d(8, CLASSES, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x):
        half = self.stem(x)
        logits = self.head(self.body(half))
        return Outputs([logits, self.aux(half)], [self.edge(half)]) if self.training else logits


def branched():
    return Branched()
