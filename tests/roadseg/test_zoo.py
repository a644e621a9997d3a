from roadseg.train import MODELS
from roadseg.zoo import condense


def test_every_network_is_listed_with_what_is_known_of_it(roadseg):
    cards = roadseg("models", "--json").json
    assert [card["name"] for card in cards] == list(MODELS)
    fastscnn = next(card for card in cards if card["name"] == "fastscnn")
    assert (fastscnn["params"], fastscnn["aux_params"]) == (1138051, 19123)
    assert fastscnn["sizes"] == "32k"
    assert set(fastscnn["steps"]) == {"train", "import", "export", "build"}
    assert "1902.04502" in fastscnn["paper"]


def test_measurements_are_condensed_to_what_is_listed():
    row = {"network": "net", "size": [512, 1024], "gmac": 1.5, "agreement": 1.0, "build_s": 3.0}
    failed = {"network": "other", "size": [512, 1024], "error": "no"}
    study = {"conditions": {"compute_capability": "8.6"}, "rows": [row, failed]}
    kept = {"size": [512, 1024], "gmac": 1.5, "agreement": 1.0, "compute_capability": "8.6"}
    assert condense(study) == {"net": [kept]}
