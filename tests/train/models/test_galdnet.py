import torch

from roadseg.train.models.galdnet import CompactNonLocal


def test_compact_attention_equals_the_norm_of_every_groups_sum_of_products_times_its_query():
    torch.manual_seed(0)
    attend = CompactNonLocal(8, 4, groups=2)
    torch.nn.init.normal_(attend.norm.weight)
    torch.nn.init.normal_(attend.norm.bias)
    x = torch.randn(2, 8, 3, 5)
    query, key, value = attend.query(x), attend.key(x), attend.value(x)
    attended = torch.cat(
        [
            (key[:, group] * value[:, group]).sum(dim=(1, 2, 3), keepdim=True) * query[:, group]
            for group in (slice(0, 2), slice(2, 4))
        ],
        dim=1,
    )
    assert torch.allclose(attend(x), attend.norm(attend.out(attended)) + x, atol=1e-5)


def test_compact_attention_stays_small_where_the_sum_of_products_leaves_fp16():
    torch.manual_seed(0)
    attend = CompactNonLocal(8, 4, groups=2)
    x = 10 * torch.randn(1, 8, 64, 64)
    products = (attend.key(x) * attend.value(x)).unflatten(1, (2, 2)).sum(dim=(2, 3, 4))
    assert products.abs().max() > torch.finfo(torch.float16).max
    assert torch.allclose(attend.half()(x.half()).float(), attend.float()(x), atol=0.1)
