"""What a model must do for its numbers to mean anything."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.data.declared import load_datasets
from bench.data.load import Dataset, as_pixels
from bench.evaluation.blame import blamed
from bench.evaluation.budget import Budget, Counted
from bench.evaluation.certificates import Prove, certificates
from bench.evaluation.derivatives import derivatives, jittered
from bench.evaluation.inspection import inspect
from bench.settings.config import Config
from bench.settings.specs import parse_model
from bench.training.checkpoint_choice import trained
from bench.training.checkpoint_files import load_weights
from bench.training.job_identity import make_job
from bench.training.loop import build_model

IMAGES = 32
RADII, CORNERS = (0.0, 0.002, 0.01, 0.05, 0.5), 10  # at which certificates are tried, and with how many images each


class NotJudgedError(Exception):
    """A point that cannot be judged; the message says why."""


def model_points(name: str, config: Config) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """Points for a model on the first data set of [run], trained where a checkpoint is there."""
    data = next(iter(load_datasets(config).values()))
    job = make_job(parse_model(name), data, config, config.run.train_seed)
    net = build_model(job, data)
    path = job.checkpoint(config.paths.checkpoints)
    if not job.pretrained and trained(job, config.paths.checkpoints):
        load_weights(path, net)
    net.eval()
    x, y = as_pixels(data.x_test[:IMAGES]), data.y_test[:IMAGES]
    classes = data.images.classes
    lent = Counted(net, Budget(), classes).eval()  # it may write into what it is given; that is a point of its own
    yield "it maps images in [0, 1] to finite float32 logits (N, classes)", lambda: _shape(net, x.clone(), classes)
    yield "it leaves its input as it is (a run lends it a copy)", lambda: _input(net, x.clone())
    yield "in eval mode it gives the same logits twice", lambda: _twice(lent, x)
    yield "an image's logits do not depend on its batch mates (1e-4 of the largest)", lambda: _batch_mates(lent, x)
    yield "a forward in eval mode leaves weights and running statistics as they are", lambda: _state(net, x.clone())
    yield "logits are the same under no_grad (1e-6 of the largest)", lambda: _no_grad(lent, x)
    yield "its input gradient exists and is not zero", lambda: _gradient(lent, x, y)
    yield "on and off the 8-bit grid and on noise, a run finds nothing to doubt", lambda: _doubts(net, data)
    yield "its input gradient agrees with central differences (float64, 1e-3)", lambda: _differences(net, x, y)
    if proofs := certificates(net):
        yield (
            "its certificates are bool (N,), shrink with the radius, and no corner of the ball breaks one",
            (lambda: next(filter(None, (_certificate(net, x, proof.prove) for proof in proofs)), None)),
        )
    yield "it can be trained: a step of its loss gives finite gradients", lambda: _trains(net, x, y)


def _shape(net: nn.Module, x: Tensor, classes: int) -> str | None:
    logits = net(x)
    if logits.shape != (len(x), classes) or logits.dtype != torch.float32:
        return f"it returned {tuple(logits.shape)} {logits.dtype}, expected {(len(x), classes)} float32"
    return None if bool(logits.isfinite().all()) else "some logits are not finite"


@torch.no_grad()
def _input(net: nn.Module, x: Tensor) -> str | None:
    before = x.clone()
    net(x)
    return None if torch.equal(x, before) else "its forward writes into the images it is given: clone them first"


def _doubts(net: nn.Module, data: Dataset) -> str | None:
    return "; ".join(note.sentence for note in inspect(net, data)) or None


@torch.no_grad()
def _twice(net: nn.Module, x: Tensor) -> str | None:
    gap = float((net(x) - net(x)).abs().max())
    return None if gap == 0 else f"logits moved by {gap:.3g}: is there noise or dropout in eval mode?"


@torch.no_grad()
def _batch_mates(net: nn.Module, x: Tensor) -> str | None:
    together = net(x)
    gap = max(float((torch.cat([net(part) for part in x.split(n)]) - together).abs().max()) for n in (1, 7))
    return (
        None
        if gap <= 1e-4 * _scale(together)
        else f"logits moved by {gap:.3g} between batches: does something stop or norm batch-wide?"
    )


def _state(net: nn.Module, x: Tensor) -> str | None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(x)
    changed = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
    return f"{changed[0]} changed" if changed else None


def _no_grad(net: nn.Module, x: Tensor) -> str | None:
    with torch.no_grad():
        silent = net(x)
    gap = float((net(x).detach() - silent).abs().max())
    return None if gap <= 1e-6 * _scale(silent) else f"logits moved by {gap:.3g}"


def _scale(logits: Tensor) -> float:
    """At least 1; an untrained deep network's logits are in the thousands, and so is their rounding."""
    return max(1.0, float(logits.abs().max()))


def _input_gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    with blamed(net):
        return torch.autograd.grad(functional.cross_entropy(net(x.clone()), y, reduction="sum"), x)[0]


def _gradient(net: nn.Module, x: Tensor, y: Tensor) -> str | None:
    gradient = _input_gradient(net, x, y)
    dead = int((gradient.flatten(1).abs().amax(1) == 0).sum())
    if not bool(gradient.isfinite().all()):
        return "it holds NaN or infinity"
    return None if dead == 0 else f"it is zero on {dead} of {len(x)} images: an attack would see nothing there"


def _differences(net: nn.Module, x: Tensor, y: Tensor) -> str | None:
    """The median over the points off the grid that have a derivative."""
    found = derivatives(copy.deepcopy(net).double().eval(), jittered(x.double()), y)
    if len(found.errors) < len(x) // 4:
        raise NotJudgedError(f"on {found.excluded} of {len(x)} points no two steps of the differences agree")
    error = float(found.errors.median())
    if error <= 1e-3:
        return None
    return f"the median relative error is {error:.3g}: part of the gradient is cut, or it is too inexact"


@torch.no_grad()
def _certificate(net: nn.Module, x: Tensor, prove: Prove) -> str | None:
    """At what the model itself predicts, so that an untrained one certifies something too."""
    y = net(x).argmax(1)
    generator, before = torch.Generator().manual_seed(0), torch.ones_like(y, dtype=torch.bool)
    for eps in RADII:
        proven = prove(x, y, eps)
        if not isinstance(proven, Tensor) or proven.shape != y.shape or proven.dtype != torch.bool:
            return f"certify returned {getattr(proven, 'dtype', type(proven).__name__)}, expected bool {tuple(y.shape)}"
        if bool((proven & ~before).any()):
            return f"an image is certified at {eps:.4g} and not within a smaller radius"
        for _ in range(CORNERS):
            signs = torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
            broken = proven & (net((x + eps * signs).clamp(0, 1)).argmax(1) != y)
            if bool(broken.any()):
                return f"at {eps:.4g} a random corner of the ball breaks {int(broken.sum())} certified images"
        before = proven
    return None


def _trains(net: nn.Module, x: Tensor, y: Tensor) -> str | None:
    twin = copy.deepcopy(net).train()
    parameters = [p for p in twin.parameters() if p.requires_grad]
    if not parameters:
        return None
    loss = functional.cross_entropy(twin(x.clone()), y)
    if not loss.requires_grad:
        return "no parameter got a gradient: its forward cuts it"
    loss.backward()
    bad = [name for name, p in twin.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    if all(p.grad is None for p in parameters):
        return "no parameter got a gradient"
    return f"the gradient of {bad[0]} is not finite" if bad else None
