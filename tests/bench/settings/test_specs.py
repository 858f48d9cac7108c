"""The grammar of names, radii, options and registries."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.registry import Entry, Registry, attack, model
from bench.settings.radii import parse_eps, show_eps
from bench.settings.specs import parse_model, parse_spec, split_list
from bench.traits import ModelTraits


def test_lists_split_outside_brackets() -> None:
    assert split_list("deq, lyadeq[readout=step,tol=1e-6]+trades[beta=3],,x") == [
        "deq",
        "lyadeq[readout=step,tol=1e-6]+trades[beta=3]",
        "x",
    ]


def test_model_names() -> None:
    spec = parse_model("lyadeq[tol=1e-6,readout=step]+trades[beta=3]")
    assert spec.architecture.name == "lyadeq" and spec.architecture.options == {"tol": "1e-6", "readout": "step"}
    assert spec.recipe and spec.recipe.name == "trades" and spec.recipe.options == {"beta": "3"}
    assert str(spec) == "lyadeq[readout=step,tol=1e-6]+trades[beta=3]"  # one spelling
    assert parse_model("deq").recipe is None and str(parse_model("deq")) == "deq"


@pytest.mark.parametrize("text", ["a[b", "a]", "a[b]", "a[b=1,b=2]", "a b", "", "a+b+c", "[x=1]"])
def test_malformed_names_are_told(text: str) -> None:
    with pytest.raises(BenchError, match=r"cannot read|twice"):
        parse_model(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", Fraction(8, 255)), ("2.5", Fraction(5, 510)), ("8/255", Fraction(8, 255)), ("0", 0), ("255", 1)],
)
def test_radii(text: str, value: Fraction) -> None:
    assert parse_eps(text) == value


@pytest.mark.parametrize("text", ["x", "-1", "300", "1/0", "", "nan", "inf", "256/255", "1e999"])
def test_bad_radii_are_told(text: str) -> None:
    with pytest.raises(BenchError, match="--eps"):
        parse_eps(text)


@given(st.fractions(0, 1, max_denominator=5000))
def test_radii_survive_printing(eps: Fraction) -> None:
    assert parse_eps(show_eps(eps)) == eps


def test_options_are_converted_and_checked() -> None:
    entry = model["lyadeq"]
    resolved = entry.resolve({"tol": "1e-6", "readout": "step"})
    assert resolved["tol"] == 1e-6 and resolved["alpha"] == 0.9
    for bad, message in [
        ({"tol": "fast"}, "tol='fast'"),
        ({"readout": "stop"}, "readout='stop'"),
        ({"tolerance": "1"}, "did you mean 'tol'"),
        ({"max_iter": "0"}, "at least 1"),
        ({"eta": "-1"}, "above 0"),
    ]:
        with pytest.raises(BenchError, match=message):
            entry.resolve(bad)
    assert attack["torchattacks:MIFGSM"].resolve({"steps": "3"})["steps"] == 3


def test_registry_refuses_collisions_and_suggests() -> None:
    registry = Registry("thing", "bench.errors", ModelTraits)

    @registry("one")
    def first(*, size: int = 1) -> None:
        """First."""

    with pytest.raises(BenchError, match="registered twice"):

        @registry("one")
        def second() -> None:
            """Second."""

    with pytest.raises(BenchError, match="did you mean 'one'"):
        registry["onee"]
    with pytest.raises(BenchError, match="may not hold"):
        registry("a,b")
    assert [entry.name for entry in registry] == ["one"] and registry["one"].summary == "First."


def test_a_plugins_source_is_part_of_its_implementation() -> None:
    builtin, foreign = model["deq"], Entry("model", "mine", test_radii, ModelTraits())
    assert builtin.implementation() == "1"
    assert foreign.implementation().startswith("1-") and len(foreign.implementation()) == 18


def test_spec_roundtrip() -> None:
    assert str(parse_spec("a[c=2,b=1]")) == "a[b=1,c=2]"
