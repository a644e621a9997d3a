"""What `waiting` shows of a call without steps."""

import time

import pytest

from roadseg.runtime import progress, waiting


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.02)


def test_a_long_call_is_reported_in_a_log(impatient, capfd):
    with waiting("build m.plan"):
        time.sleep(0.2)
    captured = capfd.readouterr()
    assert captured.err.startswith("build m.plan: at work for 0 s\n")
    assert captured.out == ""


def test_a_short_call_is_not(capfd):
    with waiting("build m.plan"):
        pass
    assert capfd.readouterr() == ("", "")


def test_reporting_ends_when_the_call_fails(impatient, capfd):
    with pytest.raises(ValueError, match="refused"), waiting("build m.plan"):
        raise ValueError("refused")
    capfd.readouterr()
    time.sleep(0.1)
    assert capfd.readouterr().err == ""
