"""A model's name inside an option of another one's."""

import pytest

from bench.errors import BenchError
from bench.settings.specs import parse_model, parse_spec, split_list

INNER = "resnet20[shortcut=conv]+pgd-at[eps=0.1,step=0.02]"


def test_an_option_may_hold_a_models_name() -> None:
    spec = parse_model(f"deq[tol=1e-5]+robust-dataset[source={INNER},images=10]")
    assert spec.architecture.options == {"tol": "1e-5"}
    assert spec.recipe is not None and spec.recipe.options == {"source": INNER, "images": "10"}
    source = parse_model(spec.recipe.options["source"])
    assert source.recipe is not None and source.recipe.options == {"eps": "0.1", "step": "0.02"}
    assert parse_model(str(spec)) == spec


def test_lists_split_outside_all_brackets() -> None:
    assert split_list(f"a[x={INNER}], b,c[y=1,z=2]") == [f"a[x={INNER}]", "b", "c[y=1,z=2]"]


@pytest.mark.parametrize("text", ["a[", "a]", "a[b=1", "a[b=1]]", "a[b=1]c", "a][b"])
def test_brackets_must_match(text: str) -> None:
    with pytest.raises(BenchError, match="cannot read"):
        parse_model(text)
    with pytest.raises(BenchError, match="cannot read"):
        parse_spec(text)
