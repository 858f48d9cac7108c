"""How fast a model is here: how many images a forward should take, and what one costs."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.attacks.core.contract import frozen
from bench.attacks.core.sign_ascent import input_gradient
from bench.data.load import Dataset, as_pixels
from bench.evaluation.budget import Budget, Counted
from bench.system.environment import device_of

FEW = 8  # images that a model with convolutions is timed on, on a CPU
LONG = 1.0  # seconds after which nothing is timed once more
ROWS = 4000  # images of a forward that gain from each other's company on a CPU, and bound its memory
ROOM = 0.4  # share of a GPU's free memory that a forward and backward may take
WORTH = 0.9  # share of the time per image that a doubled batch must get below


@dataclass(frozen=True)
class Pace:
    """Seconds per image of a forward, and of a forward and backward; and the images that a forward should take.

    Attributes:
        rows: of packed cells, at most; no fewer than a batch.
    """

    forward: float
    gradient: float
    rows: int


def pace(model: nn.Module, data: Dataset, batch: int, ascents: int) -> Pace:
    """Measured on the first test images, on the model's own device, in about a second where the model is not huge.

    On a CPU the rows follow a rule, so that a number does not depend on how busy the machine was: a convolution keeps
    it busy with one batch, anything else gains from thousands of images at once. On a GPU a batch is doubled as long as
    that pays by a tenth and fits into memory.

    Args:
        model: in eval mode.
        batch: images of an ascent's batch, which is never cut.
        ascents: how many batches there are to be taken together, at most.
    """
    on_gpu = any(t.is_cuda for t in model.parameters())
    model = Counted(model, Budget(), data.images.classes).eval()
    with frozen(model), parametrize.cached():
        x, y = _images(model, data, timed_on(model, batch, on_gpu))
        gradient = least_seconds(lambda: input_gradient(model, x, y), on_gpu) / len(x)
        with torch.no_grad():
            forward = least_seconds(lambda: model(x), on_gpu) / len(x)
        if not on_gpu:
            return Pace(forward, gradient, batch if _convolves(model) else max(batch, min(ascents * batch, ROWS)))
        rows, each = batch, gradient
        while 2 * rows <= ascents * batch and _fits(x):
            x, y = x.repeat(2, 1, 1, 1), y.repeat(2)
            try:
                now = least_seconds(lambda x=x, y=y: input_gradient(model, x, y), on_gpu) / len(x)  # type: ignore[misc]
            except torch.OutOfMemoryError:
                break
            if now > WORTH * each:
                break
            rows, each = 2 * rows, now
        return Pace(forward, each, rows)


def timed_on(model: nn.Module, batch: int, on_gpu: bool) -> int:
    """How many images tell what one of a batch costs: on a CPU a convolution takes as long for each of a few."""
    return min(FEW, batch) if _convolves(model) and not on_gpu else batch


def _convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def _fits(x: Tensor) -> bool:
    """Whether twice the images of the last look would stay within the room there is."""
    used = torch.cuda.max_memory_allocated(x.device)
    torch.cuda.reset_peak_memory_stats(x.device)
    return 2 * used < ROOM * torch.cuda.mem_get_info(x.device)[0]


def _images(model: nn.Module, data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    some = torch.arange(count) % len(data.x_test)
    device = device_of(model)
    return as_pixels(data.x_test[some]).to(device), data.y_test[some].to(device)


def least_seconds(run: Callable[[], object], on_gpu: bool, repeats: int = 3) -> float:
    """The least of a few, or of one that takes long: whatever else the machine does only adds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        if sum(times) > LONG:
            break
    return min(times)
