import torch

from roadseg.train.models import build


def test_every_branch_sees_the_backbone_rectified_behind_what_earlier_branches_gave():
    net = build("denseaspp121", 3).eval()
    seen = []
    for branch in net.branches:
        branch.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    with torch.inference_mode():
        x = torch.randn(1, 3, 32, 64)
        rectified = net.features(x).relu()
        net(x)
    for (later, _), earlier in zip(seen, range(5), strict=True):
        gathered = [output for _, output in seen[:earlier][::-1]]
        assert torch.equal(later, torch.cat([*gathered, rectified], dim=1))
