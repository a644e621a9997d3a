"""What `track` shows, and that it changes nothing of what it passes on."""

import contextlib
import io

import pytest

from roadseg.runtime import progress, track


class Clock:
    """A clock that moves when it is told to."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self):
        return True


def passing(clock, seconds, items):
    """Yield items, each of which takes so many seconds."""
    for item in items:
        clock.now += seconds
        yield item


@pytest.mark.parametrize("items", [[], [1], [3, 1, 2], iter([5, 6]), {"a": 1}, "abc"])
def test_everything_comes_through_in_order(items, capsys):
    items = list(items)
    assert list(track(items, "work")) == items
    assert capsys.readouterr() == ("", "")


def test_nothing_is_asked_for_before_it_is_needed():
    taken = []
    tracked = track((taken.append(i) for i in range(9)), "work")
    assert taken == []
    next(tracked)
    assert taken == [0]


def test_a_short_loop_says_nothing(clock, capsys):
    assert list(track(passing(clock, 0.1, range(19)), "calibrate")) == list(range(19))
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_every_fifteen_seconds(clock, capsys):
    for _ in track(passing(clock, 4, range(10)), "calibrate", total=10):
        pass
    # After 4 items 16 s have gone, so that 6 more take 24 s; the next line is due at 31 s.
    shown = capsys.readouterr()
    assert shown.err == "calibrate: 4 of 10, 24 s left\ncalibrate: 8 of 10, 8 s left\n"
    assert shown.out == ""


def test_the_total_is_taken_from_what_has_a_length(clock, capsys):
    for _ in track([1, 2], "label"):
        clock.now += 20
    assert capsys.readouterr().err == "label: 1 of 2, 20 s left\nlabel: 2 of 2, 0 s left\n"


def test_without_a_total_the_count_stands_alone(clock, capsys):
    for _ in track(passing(clock, 16, range(2)), "label"):
        pass
    assert capsys.readouterr().err == "label: 1\nlabel: 2\n"


def test_an_error_in_the_loop_is_passed_on(clock):
    def broken():
        yield 1
        raise KeyError("two")

    with pytest.raises(KeyError, match="two"):
        list(track(broken(), "work"))


def test_a_terminal_gets_a_bar_after_two_seconds(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.redirect_stderr(Terminal()) as terminal:
        for _ in track([1, 2, 3], "calibrate"):
            clock.now += 1.5
    shown = terminal.getvalue()
    assert "calibrate" in shown
    assert "3/3" in shown
    assert "1/3" not in shown


def test_a_terminal_sees_no_bar_of_a_short_loop(clock):
    with contextlib.redirect_stderr(Terminal()) as terminal:
        assert list(track([1, 2, 3], "calibrate")) == [1, 2, 3]
    assert "calibrate" not in terminal.getvalue()
