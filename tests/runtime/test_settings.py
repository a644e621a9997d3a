import dataclasses

import pytest

from roadseg.runtime import UsageError
from roadseg.runtime.settings import read_settings


@dataclasses.dataclass(frozen=True)
class Wheel:
    inches: int
    name: str = "plain"


@dataclasses.dataclass(frozen=True)
class Car:
    front: Wheel
    seats: int = 5


@pytest.fixture
def toml(tmp_path):
    def write(text):
        (tmp_path / "car.toml").write_text(text)
        return tmp_path / "car.toml"

    return write


def test_a_file_becomes_nested_dataclasses(toml):
    assert read_settings(toml("seats = 2\n[front]\ninches = 17\n"), Car) == Car(Wheel(17), 2)


def test_defaults_stand_where_the_file_is_silent(toml):
    car = read_settings(toml("[front]\nname = 'sport'\n"), Car, {"front": {"inches": 15, "name": "winter"}})
    assert car == Car(Wheel(15, "sport"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seats = 2", "missing required field `front`"),
        ("[front]\ninches = 'big'", r"Expected `int`, got `str` - at `\$\.front\.inches`"),
        ("seat = 2\n[front]\ninches = 1\nnane = 'x'", "no setting seat, front.nane. Is it misspelt"),
        ("seats = = 2", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(toml, text, sentence):
    with pytest.raises(UsageError, match=sentence):
        read_settings(toml(text), Car)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.toml cannot be read"):
        read_settings(tmp_path / "nothing.toml", Car)
