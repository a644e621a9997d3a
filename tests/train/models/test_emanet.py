import torch

from roadseg.train.models.emanet import EMAttention


def attention_with_bases(bases):
    attention = EMAttention(2, 2)
    attention.bases.copy_(bases)
    torch.nn.init.dirac_(attention.embed.weight)
    torch.nn.init.zeros_(attention.embed.bias)
    return attention


def test_bases_turn_to_the_features_they_share():
    attention = attention_with_bases(torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]))
    features = 100 * torch.tensor([[[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]])
    shares = torch.softmax(features.transpose(1, 2) @ attention.bases, dim=2)  # of each feature, all to one basis
    assert torch.allclose(attention.fit(features, shares), torch.eye(2), atol=1e-5)


def test_learned_bases_follow_a_batch_in_training_alone():
    attention = attention_with_bases(torch.eye(2)[None])
    x = torch.tensor([30.0, 40.0]).reshape(1, 2, 1, 1).expand(1, 2, 2, 2)
    attention.eval()(x)
    assert torch.equal(attention.bases[0], torch.eye(2))
    attention.train()(x)
    # Both bases become (0.6, 0.8), the only direction there is.
    expected = 0.9 * torch.eye(2) + 0.1 * torch.tensor([[0.6, 0.6], [0.8, 0.8]])
    assert torch.allclose(attention.bases[0], expected, atol=1e-4)
