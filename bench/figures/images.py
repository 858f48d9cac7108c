"""Adversarial images beside the clean ones, with their perturbations."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bench.figures.recompute import Attacked
from bench.figures.style import WIDTH, new_figure
from bench.settings.radii import show_eps

COLUMNS = 8


def image_grid(attacked: Sequence[Attacked]) -> tuple[Figure, str]:
    """Clean images, then two rows a model: adversarial, perturbation.

    Returns:
        The figure and its caption. The images are the first that every model classifies correctly when clean.
    """
    right = torch.stack([one.before == one.label for one in attacked]).all(0)
    chosen = right.nonzero().flatten()[:COLUMNS].tolist() or list(range(min(COLUMNS, len(right))))
    cell = (WIDTH - 0.7) / COLUMNS
    figure = new_figure(cell * (1.2 + 2.3 * len(attacked)))
    panels = figure.subplots(1 + 2 * len(attacked), len(chosen), squeeze=False)
    panels[0][0].set_ylabel("clean", fontsize=7.5)
    for panel, index in zip(panels[0], chosen, strict=True):
        _show(panel, attacked[0].x[index], f"class {int(attacked[0].label[index])}")
    for number, one in enumerate(attacked):
        scale = 0.5 / max(float(one.plan.eps), 1e-9)
        above, below = panels[1 + 2 * number : 3 + 2 * number]
        for column, index in enumerate(chosen):
            clean, adversarial = one.x[index], one.adversarial[index]
            broken = bool(one.broken[index])
            verdict = f"{int(one.before[index])} → {int(one.after[index])}"
            _show(above[column], adversarial, verdict + (" ✗" if broken else ""), bold=broken)
            _show(below[column], 0.5 + scale * (adversarial - clean), "")
        above[0].set_ylabel(f"{one.row.label}\nadversarial", fontsize=7.5)
        below[0].set_ylabel(f"{one.row.label}\nperturbation", fontsize=7.5)
    example = attacked[0]
    radius = example.plan.eps
    broken_of = "; ".join(f"{one.row.label} {int(one.broken.sum())} of {len(one.label)}" for one in attacked)
    caption = (
        f"{example.row.dataset} under {example.plan.label}, ε = {show_eps(radius)}: the first test images that every "
        f"model shown classifies correctly. Perturbations × {0.5 / max(float(radius), 1e-9):.1f}: grey is "
        f"no change, black −ε, white +ε. Predictions clean → adversarial, ✗ where broken. Broken among the first "
        f"n = {len(example.label)} images: {broken_of}."
    )
    return figure, caption


def _show(panel: Axes, image: Tensor, title: str, bold: bool = False) -> None:
    pixels = image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    grey = pixels.shape[2] == 1
    # Unclipped: matplotlib names a clip path by its address, so that no two files would be the same.
    drawn = pixels[..., 0] if grey else pixels
    panel.imshow(drawn, cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="nearest", clip_on=False)
    panel.set(xticks=[], yticks=[])
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set(visible=True, linewidth=0.4, color="#999999")
    if title:
        panel.set_title(title, fontsize=7.5, fontweight="bold" if bold else "normal", pad=2)
