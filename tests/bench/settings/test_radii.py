"""A length in pixels is never read by the wrong convention: 8 for 8/255, or 0.03 for 3 % of the range."""

import json
import math
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.load import Dataset
from bench.errors import BenchError
from bench.registry import attack, model, recipe
from bench.settings.config import Config
from bench.settings.radii import as_eps, parse_eps, show_eps
from bench.settings.specs import parse_model
from bench.system.canonical import canonical
from bench.training.job_identity import make_job
from tests.bench.helpers import Inside, last_line

# Of every kind an option that is a radius or a step: (registry, name, option).
LENGTHS = [
    (recipe, "pgd-at", "eps"),
    (recipe, "pgd-at", "step"),
    (recipe, "trades", "eps"),
    (recipe, "trades", "step"),
    (recipe, "ibp", "eps"),
    (recipe, "robust-dataset", "step_size"),
    (model, "ibp-mondeq", "eps"),
    (attack, "ifgsm", "alpha"),
    (attack, "pgd", "alpha"),
    (attack, "torchattacks:MIFGSM", "alpha"),
    (attack, "torchattacks:RFGSM", "alpha"),
    (attack, "torchattacks:SPSA", "delta"),
    (attack, "torchattacks:PIFGSM", "max_epsilon"),
]
ABSURD = ["1e99999999", "9" * 5000, "0." + "3" * 5000, "1/" + "9" * 5000, "nan", "inf", "-inf", "1e400", "1/0", "", "%"]


@pytest.mark.parametrize("text", ["0.03", "0.0314", "0.5", "1e-3", ".1", "0.999"])
def test_a_bare_radius_below_1_is_refused_with_both_spellings(text: str) -> None:
    with pytest.raises(BenchError) as caught:
        parse_eps(text)
    said, value = str(caught.value), Fraction(text)
    assert f"'{text}'" in said and f"{text}/255" in said
    spelled = [word.rstrip(",") for word in said.split() if word.rstrip(",").endswith(("%", "/255"))]
    assert [parse_eps(word) for word in spelled] == [value, value, value / 255]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3%", Fraction(3, 100)),
        ("3 %", Fraction(3, 100)),
        ("100%", Fraction(1)),
        ("0.5/255", Fraction(1, 510)),
        ("7.65/255", Fraction(3, 100)),
        ("1/10", Fraction(1, 10)),
        ("0", Fraction(0)),
        ("0.0", Fraction(0)),
        ("1", Fraction(1, 255)),
    ],
)
def test_radii_that_can_be_read_in_one_way(text: str, value: Fraction) -> None:
    assert parse_eps(text) == value == as_eps(text)


def test_eps_of_the_command_line_and_of_bench_toml(tmp_path: Path, inside: Inside) -> None:
    quick = ("--models", "fc-linear", "--dry-run")
    for given_as in ("0.0314", "8,0.03"):
        said = last_line(inside(tmp_path, "run", *quick, "--eps", given_as, code=2))
        assert "--eps: '0.03" in said and "/255" in said and "%" in said
    (tmp_path / "bench.toml").write_text('[run]\neps = ["0.03"]\n')
    assert "write 3% or 7.65/255" in last_line(inside(tmp_path, "run", *quick, code=2))
    assert "write 3% or 7.65/255" in last_line(inside(tmp_path, "verify", "lyadeq-no-orth", "--eps", "0.03", code=2))


def test_a_radius_in_per_cent_reaches_the_table(tmp_path: Path, inside: Inside) -> None:
    options = ("--models", "fc-linear", "--epochs", "0", "--attacks", "ifgsm", "--examples", "5", "--format", "json")
    done = inside(tmp_path, "run", *options, "--eps", "10%")
    assert {line["eps"] for line in json.loads(done.stdout)} == {"0", "25.5/255"}


@pytest.mark.parametrize(("kind", "name", "option"), LENGTHS)
def test_options_that_are_lengths_are_fractions(kind: object, name: str, option: str) -> None:
    resolve: Callable[[dict[str, object]], dict[str, object]] = kind[name].resolve  # type: ignore[index]
    assert resolve({option: "8/255"})[option] == 8 / 255 == resolve({option: 8 / 255})[option]
    assert resolve({option: "0.1"})[option] == 0.1 == resolve({option: "10%"})[option]
    for text in ("8", "1", "1.5", "255"):
        with pytest.raises(BenchError, match=rf"{option}='{text}': {text} .*write {text}/255 .* 0\.|{text}/255"):
            resolve({option: text})
    for bad in (8, 1, "-0.1", "-8/255", "300", "8/4", "120%", math.nan, math.inf, True):
        with pytest.raises(BenchError, match=option):
            resolve({option: bad})


def test_l2_steps_of_torchattacks_are_no_lengths_of_a_pixel() -> None:
    assert attack["torchattacks:PGDL2"].resolve({"alpha": "2"})["alpha"] == 2.0


def test_a_radius_of_8_is_refused_before_anything_is_trained(tmp_path: Path, inside: Inside) -> None:
    for name in ("fc-linear+pgd-at[eps=8]", "ibp-mondeq[eps=8]", "fc-linear+robust-dataset[source=deq+trades[step=2]]"):
        assert "/255" in last_line(inside(tmp_path, "train", "--models", name, "--epochs", "0", code=2))
    (tmp_path / "bench.toml").write_text("[options.mondeq]\neps = 8\n")
    assert "write 8/255" in last_line(inside(tmp_path, "train", "--models", "ibp-mondeq", "--epochs", "0", code=2))
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("name", "keyed"),
    [
        ("fc-linear+pgd-at[eps=0.1,step=0.02]", '"recipe_options":{"eps":0.1,"step":0.02,"steps":7}'),
        (
            "fc-linear+trades[eps=8/255]",
            '"recipe_options":{"beta":6.0,"eps":0.03137254901960784,"step":0.007,"steps":10}',
        ),
        ("fc-linear+robust-dataset[step_size=0.5]", '"step_size":0.5,"steps":1000}'),
        ("ibp-mondeq[eps=0.1]", '"options":{"beta":1.0,"eps":0.1,"form":"dense"'),
        ("ibp-mondeq[eps=2/255]", '"options":{"beta":1.0,"eps":0.00784313725490196,"form":"dense"'),
    ],
)
def test_what_hashes_are_made_of_are_the_same_floats_as_ever(
    name: str, keyed: str, digits: Dataset, config: Config
) -> None:
    assert keyed in canonical(make_job(parse_model(name), digits, config, seed=0).identity())


@pytest.mark.parametrize("text", ABSURD, ids=range(len(ABSURD)))
def test_absurd_lengths_are_told_at_once_and_in_short(text: str) -> None:
    started = time.monotonic()
    for read in (parse_eps, as_eps, lambda value: recipe["pgd-at"].resolve({"eps": value})):
        with pytest.raises(BenchError) as caught:
            read(text)
        assert len(str(caught.value)) < 300
    assert time.monotonic() - started < 60, "a number of a hundred million digits would never be there"


def test_an_int_of_5000_digits_in_bench_toml(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "bench.toml").write_text(f"[options.mondeq]\neps = {'9' * 5000}\n")
    assert "bench.toml is not valid TOML" in last_line(inside(tmp_path, "list", "models", code=2))


@given(st.fractions(0, 1, max_denominator=20_000))
def test_python_floats_are_fractions_of_the_pixel_range(eps: Fraction) -> None:
    assert as_eps(float(eps)) == eps == as_eps(eps) == as_eps(show_eps(eps))


@pytest.mark.parametrize(
    "value", [8, 1, -1, 300, 10**5000, True, 1.5, -0.1, math.nan, math.inf, 1e-15, None, 8 + 0j], ids=range(13)
)
def test_what_python_callers_may_not_give(value: object) -> None:
    with pytest.raises(BenchError, match=r"eps: .*8 ?/ ?255"):
        as_eps(value)  # type: ignore[arg-type]
