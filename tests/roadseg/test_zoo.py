from roadseg.train import MODELS
from roadseg.zoo import condense, count_parameters, read_measured


def test_every_network_is_listed_with_what_is_known_of_it(roadseg):
    cards = roadseg("models", "--json").json
    assert [card["name"] for card in cards] == list(MODELS)
    fastscnn = next(card for card in cards if card["name"] == "fastscnn")
    assert (fastscnn["params"], fastscnn["aux_params"]) == (1138051, 19123)
    assert fastscnn["sizes"] == "32k"
    assert set(fastscnn["steps"]) == {"train", "import", "export", "build"}
    assert "1902.04502" in fastscnn["paper"]


def test_measurements_are_condensed_to_what_is_listed():
    row = {
        "network": "net",
        "size": [512, 1024],
        "params": 7,
        "aux_params": 2,
        "gmac": 1.5,
        "agreement": 1.0,
        "build_s": 3.0,
    }
    failed = {"network": "other", "size": [512, 1024], "error": "no"}
    study = {"conditions": {"compute_capability": "8.6"}, "rows": [row, failed]}
    kept = {
        "size": [512, 1024],
        "params": 7,
        "aux_params": 2,
        "gmac": 1.5,
        "agreement": 1.0,
        "compute_capability": "8.6",
    }
    assert condense(study) == {"net": [kept]}


def test_one_network_is_told_in_full(roadseg):
    (card,) = roadseg("models", "icnet", "--json").json
    assert card["variants"] == ["sfsegnets"]
    assert "67.7 val and 69.5 test of the original" in roadseg("models", "icnet").err


def test_the_table_has_a_line_for_each_network(roadseg):
    lines = roadseg("models").err.splitlines()
    starts = [line.split()[0] for line in lines if line.strip()]
    assert [start for start in starts if start in MODELS] == list(MODELS)


def test_a_name_that_no_network_has_is_wrong_usage(roadseg):
    result = roadseg("models", "fastcnn")
    assert result.code == 2
    assert "there is no network 'fastcnn'; known are deeplabv3_r101, " in result.err


def test_measured_counts_are_those_of_the_code():
    for name, rows in list(read_measured().items())[::5]:
        assert {(row["params"], row["aux_params"]) for row in rows} == {count_parameters(name)}, name
