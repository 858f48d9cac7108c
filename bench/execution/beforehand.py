"""Before a row is computed or given out: its model is looked at once, and asked whether it is still the one that was.

A key holds the hash of a model's weights; what a plugin computes from other files or plain attributes it cannot hold.
So the logits of a few fixed test images are kept with each cell of a plugin's or foreign model. They are no part of the
key, since processors round differently, but where they differ by more than that, a stored number is another model's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.attacks.core.contract import ContractError, frozen
from bench.data.load import Dataset
from bench.errors import BenchError, first_line_or_traceback
from bench.evaluation.budget import Budget, Counted
from bench.evaluation.inspection import GRID, inspect, probe
from bench.execution.matrix_rows import ReadyRow
from bench.execution.worker import Setting, load_model
from bench.store.cells import Cell
from bench.store.store import Store
from bench.system.environment import device_of
from bench.system.progress import say
from bench.system.threads import threads

ROUNDING = 1e-3  # of the largest logit


class RowError(BenchError):
    """A model that cannot be evaluated, in one line."""


def look_before(row: ReadyRow, data: Dataset, store: Store, examples: int, setting: Setting) -> dict[str, Any]:
    """What manifests of the row's cells are to say of its model: `notes` (`inspection`) and `function`, logits.

    Empty where nothing is to be computed. Stored cells of another function are taken out of the store, which is said.

    Raises:
        RowError: the model cannot be evaluated.
    """
    cells, keep = (*row.cells, *row.certificates), setting.keep_images
    if not cells:
        return {}
    changes = row.job.foreign is not None or not row.job.architecture.is_builtin
    kept = [cell for cell in cells if changes and (store.manifest(cell) or {}).get("function")]
    todo = any(not store.complete(cell, examples) or store.missing(cell, examples, keep) for cell in cells)
    if not todo and not kept:
        return {}
    try:
        with threads(1):  # as in a worker
            net = load_model(cells[0].source, data, setting.device, cells[0].identity.model.weights)
            other = _discard_others(row, store, kept, function_of(net, data)) if kept else False
            if not todo and not other:
                return {}
            notes = inspect(net, data)
            stable = changes and all(note.kind != "noise" for note in notes)
            function = {"function": function_of(net, data).tolist()} if stable else {}
    except (Exception, SystemExit) as error:
        known = isinstance(error, BenchError | ContractError)
        why = error if known else first_line_or_traceback(error, setting.debug)
        raise RowError(f"{row.label}: {why}") from error
    return {"notes": [note.as_dict() for note in notes], **function}


@torch.no_grad()
def function_of(net: nn.Module, data: Dataset) -> Tensor:
    """Logits of the first fixed test images, (GRID, classes)."""
    model = Counted(net, Budget(), data.images.classes).eval()
    device = device_of(net)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), frozen(net), parametrize.cached():
        return model(probe(data)[:GRID].to(device)).cpu()


def _discard_others(row: ReadyRow, store: Store, cells: list[Cell], logits: Tensor) -> bool:
    """Take out of the store what another function than this one gave; returns whether there was any."""
    gaps = []
    for cell in cells:
        known = torch.tensor((store.manifest(cell) or {})["function"])
        gap = float((known - logits).abs().max()) if known.shape == logits.shape else torch.inf
        if not gap <= ROUNDING * max(1.0, float(logits.abs().max())):
            store.discard(cell)
            gaps.append(gap)
    if gaps:
        say(
            f"{row.label} on {row.dataset}: weights and code are those of {len(gaps)} stored numbers, but logits of "
            f"fixed images differ by {max(gaps):.2g}: something else that it computes from changed. Computed anew."
        )
    return bool(gaps)
