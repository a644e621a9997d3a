import pytest

from roadseg.steps import Steps


class Copy:
    """Copies one file to another and counts how often."""

    def __init__(self, source, target):
        self.source, self.target, self.times = source, target, 0

    def __call__(self):
        self.times += 1
        self.target.write_bytes(self.source.read_bytes())


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "in").write_bytes(b"one")
    return Copy(tmp_path / "in", tmp_path / "out")


def run(copy, folder, **settings):
    Steps(folder).run("copy", settings, [copy.source], [copy.target], copy)


def test_a_step_runs_once_while_nothing_changes(copy, tmp_path):
    run(copy, tmp_path, count=3)
    run(copy, tmp_path, count=3)
    assert copy.times == 1


def test_a_changed_setting_runs_it_again(copy, tmp_path):
    run(copy, tmp_path, count=3)
    run(copy, tmp_path, count=4)
    assert copy.times == 2


def test_a_changed_input_runs_it_again(copy, tmp_path):
    run(copy, tmp_path)
    copy.source.write_bytes(b"two")
    run(copy, tmp_path)
    assert copy.target.read_bytes() == b"two"


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"onf")])
def test_a_lost_or_damaged_output_is_made_again(copy, tmp_path, damage):
    run(copy, tmp_path)
    damage(copy.target)
    run(copy, tmp_path)
    assert copy.target.read_bytes() == b"one"


def test_a_step_that_failed_has_no_record(copy, tmp_path):
    def fail():
        copy()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Steps(tmp_path).run("copy", {}, [copy.source], [copy.target], fail)
    run(copy, tmp_path)
    assert copy.times == 2


def test_a_damaged_record_counts_as_none(copy, tmp_path):
    run(copy, tmp_path)
    (tmp_path / ".steps" / "copy.json").write_bytes(b"\xff{")
    run(copy, tmp_path)
    assert copy.times == 2
