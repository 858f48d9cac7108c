"""The paper's Fig. 3: t-SNE of the features behind the orthogonal layer, clean and adversarial, with and without it."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from bench.figures.recompute import Attacked
from bench.figures.style import CLASS_COLOURS, new_figure
from bench.models.penultimate import penultimate
from bench.settings.radii import show_eps
from bench.statistics import Share

PERPLEXITY = 30.0


def figure_3(attacked: Sequence[Attacked], seed: int) -> tuple[Figure, str]:
    """A row for each model, its clean and its adversarial features in one common embedding; and the caption."""
    figure = new_figure(3.3 * len(attacked))
    panels = figure.subplots(len(attacked), 2, squeeze=False)
    for row, one in zip(panels, attacked, strict=True):
        points = embed(one, seed)
        low, high = points.min((0, 1)), points.max((0, 1))
        margin = 0.04 * (high - low)
        right = one.before == one.label
        shares = [Share(int(hits.sum()), len(right)) for hits in (right, right & ~one.broken)]
        for panel, places, name, share in zip(row, points, ("clean", "adversarial"), shares, strict=True):
            for number in sorted({int(label) for label in one.label}):
                rows = (one.label == number).cpu().numpy()
                panel.scatter(
                    places[rows, 0], places[rows, 1], s=17, linewidths=0, marker=f"${number}$",
                    color=CLASS_COLOURS[number % len(CLASS_COLOURS)],
                )  # fmt: skip
            low_share, high_share = share.interval
            interval = f"[{low_share:.1f}, {high_share:.1f}]"
            panel.set_title(f"{one.row.label}, {name}: {share.percent:.1f} % right {interval}", loc="left")
            panel.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
            panel.set(xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    example = attacked[0]
    caption = (
        f"t-SNE of what the last linear layer is given (in lyadeq the features behind the orthogonal layer), first "
        f"n = {len(example.label)} test images of {example.row.dataset}, each drawn as its true class. Per model, "
        f"clean and adversarial images ({example.plan.label}, ε = {show_eps(example.plan.eps)}) share one embedding, "
        f"perplexity {min(PERPLEXITY, _most(example)):g}, seed {seed}; in brackets 95 % Wilson intervals. "
        "Distances between clusters mean little in t-SNE."
    )
    return figure, caption


def embed(one: Attacked, seed: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.float64]]:
    """Places in the plane of clean and adversarial features, (2, N, 2)."""
    with torch.no_grad():
        features = torch.cat([penultimate(one.model, x) for x in (one.x, one.adversarial)]).double().cpu().numpy()
    embedding = TSNE(init="pca", perplexity=min(PERPLEXITY, _most(one)), random_state=seed).fit_transform(features)
    return np.asarray(embedding, np.float64).reshape(2, len(one.label), 2)


def _most(one: Attacked) -> float:
    """The largest perplexity for this many points."""
    return max(1.0, (2 * len(one.label) - 1) / 3)
