import pytest

from roadseg.calib.sensitivity import Part, partition, try_parts

LAYERS = ["/stem/Conv", "/body/0/a/Conv", "/body/0/b/Conv", "/body/1/Conv", "/head/Conv"]
LOSSES = dict(zip(LAYERS, (0.5, 0.02, 0.03, 0.4, 0.01), strict=True))


class Meter:
    """Loses the sum of what the layers lose, and remembers what was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, layers):
        self.asked.append(tuple(layers))
        return sum(LOSSES[layer] for layer in layers)


def names(part):
    """Of all that a part consists of, with how deep it is."""
    return [(0, part.name), *((depth + 1, name) for inner in part.parts for depth, name in names(inner))]


def test_layers_are_parted_as_their_modules_are():
    assert names(partition(LAYERS)) == [
        (0, "/"),
        (1, "/stem/Conv"),
        (1, "/body/"),
        (2, "/body/0/"),
        (3, "/body/0/a/Conv"),
        (3, "/body/0/b/Conv"),
        (2, "/body/1/Conv"),
        (1, "/head/Conv"),
    ]
    assert partition(LAYERS).parts[1].layers == tuple(LAYERS[1:4])


def test_modules_within_one_another_that_hold_the_same_layers_are_one_part():
    assert names(partition(["/net/body/a/Conv", "/net/body/b/Conv"])) == [
        (0, "/net/body/"),
        (1, "/net/body/a/Conv"),
        (1, "/net/body/b/Conv"),
    ]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["437", "440"], ["437", "440"]),  # names of other exporters
        (["body.0.conv", "body.1.conv", "head"], ["body.", "head"]),
        (["body", "body/0", "body/1"], ["body", "body/"]),  # a layer with the name of a module is not the module
    ],
)
def test_names_without_slashes_are_parted_as_far_as_they_tell(layers, expected):
    assert [part.name for part in partition(layers).parts] == expected


def test_a_single_layer_is_its_own_part():
    assert partition(["/head/Conv"]) == Part("/head/Conv", ("/head/Conv",))


def test_the_module_that_loses_most_is_taken_apart_until_the_others_keep_to_the_budget(tmp_path):
    meter = Meter()
    found = try_parts(partition(LAYERS), meter, 0.2, tmp_path / "known.json", "key")
    # The body loses 0.45, more than the budget; of what it consists of only one is a module, which loses 0.05.
    assert meter.asked == [(LAYERS[0],), tuple(LAYERS[1:4]), (LAYERS[4],), tuple(LAYERS[1:3]), (LAYERS[3],)]
    assert list(found.parts) == ["/stem/Conv", "/body/", "/head/Conv", "/body/0/", "/body/1/Conv"]
    assert found.parts["/body/"] == pytest.approx(0.45)
    assert found.layers == pytest.approx(dict(zip(LAYERS, (0.5, 0.025, 0.025, 0.4, 0.01), strict=True)))


def test_what_is_not_taken_apart_keeps_to_the_budget_together(tmp_path):
    whole = partition(LAYERS)
    for budget in (0.01, 0.05, 0.1, 0.3, 1):
        found = try_parts(whole, Meter(), budget, tmp_path / f"{budget}.json", "key")
        assert sum(loss for layer, loss in LOSSES.items() if layer not in found.parts) <= budget + 1e-9


def test_another_budget_goes_on_from_what_is_known(tmp_path):
    memory = tmp_path / "known.json"
    try_parts(partition(LAYERS), Meter(), 0.2, memory, "key")
    meter = Meter()
    try_parts(partition(LAYERS), meter, 0.04, memory, "key")
    assert meter.asked == [(LAYERS[1],), (LAYERS[2],)]
    other = Meter()
    try_parts(partition(LAYERS), other, 0.2, memory, "another key")
    assert len(other.asked) == 5


def test_a_damaged_memory_is_begun_anew(tmp_path):
    (tmp_path / "known.json").write_bytes(b"{\xff")
    meter = Meter()
    try_parts(partition(LAYERS), meter, 0.2, tmp_path / "known.json", "key")
    assert len(meter.asked) == 5
