from pathlib import Path

import pytest

from roadseg import building, engines
from roadseg.export import kernels
from roadseg.runtime import MissingDependencyError, UsageError

MODEL, PLAN = Path("m.onnx"), Path("m.plan")


@pytest.fixture
def done(monkeypatch):
    """What is compiled and built, in order, where kernels for 8.7 are wanted."""
    done = []
    monkeypatch.setattr(engines, "wanted_kernels", lambda model, flavour, gpu, settings: "8.7")
    monkeypatch.setattr(kernels, "write_kernels", lambda *args: done.append(("compile", *args)))
    monkeypatch.setattr(engines, "build", lambda model, out, **named: done.append(("build", model, out)))
    return done


def test_kernels_that_are_wanted_are_compiled_beside_the_model_before_it_is_built(done):
    building.build_engine(MODEL, PLAN)
    assert done == [("compile", MODEL, ["8.7"], Path("m.kernels")), ("build", MODEL, PLAN)]


def test_nothing_is_compiled_that_is_not_wanted(done, monkeypatch):
    monkeypatch.setattr(engines, "wanted_kernels", lambda model, flavour, gpu, settings: None)
    building.build_engine(MODEL, PLAN)
    assert done == [("build", MODEL, PLAN)]


@pytest.mark.parametrize("error", [MissingDependencyError, UsageError])
def test_a_machine_that_cannot_compile_builds_without_kernels(done, monkeypatch, error):
    def refuse(*args):
        raise error("no compiler here")

    monkeypatch.setattr(kernels, "write_kernels", refuse)
    building.build_engine(MODEL, PLAN)
    assert done == [("build", MODEL, PLAN)]
