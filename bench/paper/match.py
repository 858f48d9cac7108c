"""Which of the paper's rows a model of ours is, and what was printed of it."""

from fractions import Fraction

from bench.errors import BenchError
from bench.paper.load import ATTACKS, TABLES, printed_cells
from bench.registry import model
from bench.settings.specs import parse_model
from bench.traits import ModelTraits


def name_and_recipe(label: str) -> tuple[str, str]:
    """A label as the paper's rows name models, without the recipe's settings, and the recipe; of any label."""
    try:
        spec = parse_model(label)
    except BenchError:
        return label, "unknown"
    architecture = spec.architecture
    traits = model[architecture.name].traits if architecture.name in model else ModelTraits()
    if traits.pretrained:
        return label, "pretrained"
    usual = traits.recipe
    recipe = spec.recipe.name if spec.recipe else usual
    return (str(architecture) if recipe == usual else f"{architecture}+{recipe}"), recipe


def printed_of(dataset: str, label: str) -> dict[tuple[str, Fraction], float]:
    """What the paper printed of a model, in per cent: by our attack ("" without) and radius; empty where nothing."""
    name = name_and_recipe(label)[0]
    cells = [c for t in TABLES for c in printed_cells(t) if (c.dataset, c.model) == (dataset, name)]
    return {(ATTACKS.get(c.attack, ""), c.eps): c.value for c in cells}
