"""Monotone DEQs, plain and with interval bounds: IBP-MonDEQ (Wei & Kolter, ICLR 2022)."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from bench.models.equilibrium.gradient import EquilibriumCell, GradientName, attach
from bench.models.equilibrium.layer import FallbackName
from bench.models.equilibrium.methods import MethodName, make_method
from bench.models.equilibrium.options import EVAL_OPTIONS, SolverOptions, idle
from bench.models.equilibrium.solution_recorder import record
from bench.models.equilibrium.solve import Solution, solve
from bench.models.equilibrium.surrogate_gradients import Parts, state_views
from bench.models.images import Classifier, Images
from bench.models.monotone.dual_certificate import is_affine, proven_margins
from bench.models.monotone.enclosure import enclose_input, interval_cell
from bench.models.monotone.interval import Bounds, propagate, rounding, worst_margins
from bench.models.monotone.layer import Monotone, MonotoneCell
from bench.registry import model
from bench.settings.lengths import Length

Form = Literal["dense", "3", "7"]
Radius = float | Tensor
Certify = Callable[[Tensor, Tensor, Radius], Tensor]

WIDTHS: dict[Form, int] = {"dense": 256, "3": 128, "7": 64}
ATTACK_TOLERANCE = 1e-6  # how far outside its ball a float32 image may lie


@dataclass(frozen=True)
class MonDEQOptions(SolverOptions):
    """Options of a monotone DEQ; each is documented in bench.toml under [options.mondeq]."""

    form: Form = "dense"
    width: int = 0
    m: float = 0.5
    rescale: bool = False
    solver: MethodName = "anderson"
    max_iter: int = 50
    fallback: FallbackName = "none"
    gradient: GradientName = "implicit"
    train_tol: float = 1e-5
    train_gradient_tol: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 0:
            raise ValueError(f"width must be 0 (the form's own) or positive, got {self.width}")
        if not 0 < self.m < 1:
            raise ValueError(f"m must lie between 0 and 1, got {self.m}")
        if self.fallback != "none":
            raise ValueError("a monotone layer has one fixed point and its iteration converges: fallback must be none")
        chosen = {self.solver, self.train_solver, self.gradient, self.train_gradient}
        if self.form != "dense" and chosen & {"newton", "exact"}:
            raise ValueError("newton and exact need the Jacobian in closed form, which form=dense alone has")


@dataclass(frozen=True)
class IBPMonDEQOptions(MonDEQOptions):
    """MonDEQOptions and the radius that training certifies."""

    eps: Length = 0.00785

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps must lie in (0, 1], got {self.eps}")


class MonDEQBody(nn.Module):
    """Normalised images to logits: z* = ReLU(W z* + h), h = ReLU(BN(Ux)) + bias, then `tail` and `head`.

    Forms: `dense` reads the state out linearly; `3` has one monotone convolution, batch normalisation and 4×4
    average pooling; `7` has one, three convolutions with batch normalisation and a layer of 8 × width units.
    """

    def __init__(self, images: Images, options: MonDEQOptions) -> None:
        super().__init__()
        width = options.width or WIDTHS[options.form]
        channels, height, columns = images.shape
        shape = (width,) if options.form == "dense" else (width, height, columns)
        self.settings = {True: options.training(), False: options.evaluation()}
        if options.form == "dense":
            first: list[nn.Module] = [
                nn.Flatten(),
                nn.Linear(channels * height * columns, width, bias=False),
                nn.BatchNorm1d(width),
            ]
        else:
            first = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        self.injection = nn.Sequential(*first, nn.ReLU())
        self.bias = nn.Parameter(torch.zeros(width, *(1,) * (len(shape) - 1)))
        self.monotone = Monotone(shape, options.m, options.rescale)
        self.tail, features = _tail(options.form, shape)
        self.head = nn.Linear(features, images.classes)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.embed(x)))

    def embed(self, x: Tensor) -> Tensor:
        """What the last layer reads, (N, features)."""
        return cast(Tensor, self.tail(self._state(self.injection(x) + self.bias)))

    def views(self) -> dict[str, nn.Module]:
        """Ways to other gradients (`state_views`)."""
        return state_views(self, self._parts)

    def diagnostics(self, x: Tensor) -> dict[str, Tensor]:
        """Solver residual and iterations per image, (N,)."""
        solution = self._solve(MonotoneCell(self.monotone.operator()), (self.injection(x) + self.bias).flatten(1))
        return {"residual": solution.residual, "iterations": solution.iterations}

    def bounds(self, x: Bounds) -> tuple[Bounds, Bounds]:
        """Bounds of the state and of what the last layer reads, differentiable, from those of the input."""
        h = propagate(self.injection, x).map(lambda t: t + self.bias)
        both = torch.cat([h.upper.flatten(1), h.lower.flatten(1)], 1)
        upper, lower = self._equilibrium(interval_cell(self.monotone.operator()), both).chunk(2, 1)
        nominal = None if h.nominal is None else self._state(h.nominal)
        state = Bounds(lower.view_as(h.lower), upper.view_as(h.upper), nominal)
        return state, propagate(self.tail, state)

    @torch.no_grad()
    def sound_bounds(self, x: Bounds, slack: float) -> tuple[Bounds, Bounds]:
        """As `bounds`, and proven: wherever solvers stop, and for arithmetic with relative error `slack`."""
        state = self.sound_input(x, slack).map(torch.relu)
        return state, propagate(self.tail, state, slack)

    @torch.no_grad()
    def sound_input(self, x: Bounds, slack: float) -> Bounds:
        """Bounds of p = W z* + h, shaped as a state, with all that `sound_bounds` allows for."""
        h = propagate(self.injection, x, slack).map(lambda t: t + self.bias)
        h = h.widened(rounding(1, slack) * (h.magnitude() + self.bias.abs()))
        cell = interval_cell(self.monotone.operator(), slack)
        flat = enclose_input(cell, h.map(lambda t: t.flatten(1)), solver_tol=self.settings[False].tol)
        return flat.map(lambda t: t.view_as(h.lower))

    def _parts(self) -> Parts:
        def read(z: Tensor, h: Tensor) -> Tensor:
            return cast(Tensor, self.head(self.tail(z.view(-1, *self.monotone.shape))))

        cell = MonotoneCell(self.monotone.operator())
        return Parts(lambda x: (self.injection(x) + self.bias).flatten(1), cell, read)

    def _state(self, h: Tensor) -> Tensor:
        return self._equilibrium(MonotoneCell(self.monotone.operator()), h.flatten(1)).view_as(h)

    def _equilibrium(self, cell: EquilibriumCell, h: Tensor) -> Tensor:
        settings = self.settings[self.training]
        return attach(
            cell,
            record(self._solve(cell, h)).z,
            h,
            method=settings.gradient,
            tol=settings.gradient_tol,
            max_iter=settings.max_iter,
            steps=settings.gradient_steps,
            track=self.training,
            image=True,
        )

    def _solve(self, cell: EquilibriumCell, h: Tensor) -> Solution:
        # Nothing inside the iteration couples samples, so each stops on its own in training too.
        settings = self.settings[self.training]
        method = make_method(settings.method, memory=settings.memory, beta=settings.beta, jacobian=cell.jacobian)
        h = h.detach()
        return solve(cell, torch.zeros_like(h), h, method, tol=settings.tol, max_iter=settings.max_iter)


class MonDEQ(Classifier):
    """A monotone DEQ on images in [0, 1], with what interval propagation proves about it.

    Attributes:
        eps: the radius it is trained to be certified for; 0: none.
    """

    body: MonDEQBody

    def __init__(self, images: Images, options: MonDEQOptions, eps: float) -> None:
        super().__init__(images, MonDEQBody(images, options))
        self.eps = eps

    def worst_case(self, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Clean logits, and for each class the largest z_j − z_y that the bounds leave open; differentiable.

        Args:
            x: images in [0, 1], (N, C, H, W).
            y: labels, (N,).
            eps: radius in units of the pixel range, ≥ 0.

        Returns:
            Two (N, classes). Not inflated: for training, no proof.
        """
        _, features = self.body.bounds(self._ball(x, eps)._replace(nominal=self.normalize(x)))
        assert features.nominal is not None
        return self.body.head(features.nominal), -worst_margins(self.body.head, features, y)

    def certify(self, x: Tensor, y: Tensor, eps: Radius) -> Tensor:
        """Whether every image within eps of x, and in [0, 1], is proven to be classified as y, bool (N,).

        Computed in float64 with all rounding outward. The proof covers the model as it is evaluated: its
        arithmetic in its own type, and its solver's tolerance wherever the reported residual is within it.

        Args:
            x: images in [0, 1], (N, C, H, W).
            y: labels, (N,).
            eps: radius in units of the pixel range, one or (N,); below 0 raises ValueError.
        """
        return _all_others(self._proven(x, eps, y)[1] > 0, y)

    def certify_dual(self, x: Tensor, y: Tensor, eps: Radius) -> Tensor:
        """As `certify`, by the Lagrange dual of the layer's linear relaxation where interval bounds do not suffice.

        Whatever `certify` proves, this does. Raises ValueError for form 7, whose tail is not affine, and for eps < 0.
        """
        return _all_others(self._proven_dual(x, eps, y) > 0, y)

    @property
    def certificates(self) -> dict[str, Certify]:
        """What it has to prove with, by name, `certify` first; each takes and returns what `certify` does."""
        dual: dict[str, Certify] = {"dual": self.certify_dual} if is_affine(self.body.tail) else {}
        return {"IBP": self.certify, **dual}

    def state_width(self, x: Tensor, eps: Radius) -> Tensor:
        """Mean width of the state's proven intervals over the ball, (N,)."""
        state = self._proven(x, eps, torch.zeros(len(x), dtype=torch.long, device=x.device))[0]
        return (state.upper - state.lower).flatten(1).mean(1)

    def anneal(self, start: float, progress: float) -> None:
        """Set m on the line from `start` (progress 0) to the model's own (progress 1)."""
        self.body.monotone.anneal(start, progress)

    @torch.no_grad()
    def _proven(self, x: Tensor, eps: Radius, y: Tensor) -> tuple[Bounds, Tensor]:
        exact, ball, slack = self._rounded_ball(x, eps)
        state, features = exact.body.sound_bounds(ball, slack)
        return state, worst_margins(exact.body.head, features, y, slack)

    @torch.no_grad()
    def _proven_dual(self, x: Tensor, eps: Radius, y: Tensor) -> Tensor:
        if not is_affine(self.body.tail):
            raise ValueError("the dual bound needs affine layers behind the state, which form 7 has not")
        exact, ball, slack = self._rounded_ball(x, eps)
        right = copy.deepcopy(self).eval()(x).argmax(1) == y
        return proven_margins(exact.body, ball, y, right, slack)

    @torch.no_grad()
    def _rounded_ball(self, x: Tensor, eps: Radius) -> tuple["MonDEQ", Bounds, float]:
        """The model in float64, every normalised image it may see in the ball, and its own type's relative rounding."""
        radius = torch.as_tensor(eps, dtype=torch.double, device=x.device).view(-1, 1, 1, 1)
        if not bool((radius >= 0).all()):
            raise ValueError(f"eps must be 0 or more, got {float(radius.min())}")
        radius = radius + ATTACK_TOLERANCE
        exact = copy.deepcopy(self).double().eval()
        slack = torch.finfo(x.dtype).eps
        ball = exact._ball(x.double(), radius)
        mean, std = exact.normalize.get_buffer("mean"), exact.normalize.get_buffer("std")
        return exact, ball.widened(rounding(2, slack) * (1 + mean) / std), slack

    def _ball(self, x: Tensor, eps: Radius) -> Bounds:
        return Bounds((x - eps).clamp_min(0), (x + eps).clamp_max(1)).map(self.normalize)


def _all_others(proven: Tensor, y: Tensor) -> Tensor:
    """Whether it holds of every class but y, (N,)."""
    return (proven | nn.functional.one_hot(y, proven.shape[1]).bool()).all(1)


def _tail(form: Form, shape: tuple[int, ...]) -> tuple[nn.Sequential, int]:
    """Layers between state and head, and how many features they end in."""
    width = shape[0]
    if form == "dense":
        return nn.Sequential(), width
    _, height, columns = shape
    if form == "3":
        return nn.Sequential(nn.BatchNorm2d(width), nn.AvgPool2d(4), nn.Flatten()), width * (height // 4) * (
            columns // 4
        )
    layers: list[nn.Module] = []
    for inside, stride in ((width, 2), (2 * width, 1), (2 * width, 1)):
        layers += [nn.Conv2d(inside, 2 * width, 3, stride, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU()]
    flat = 2 * width * -(-height // 2) * -(-columns // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 8 * width), nn.ReLU()), 8 * width


@model("mondeq", group="mondeq", options=MonDEQOptions, eval_options=EVAL_OPTIONS, idle=idle)
def mondeq(images: Images, **options: Any) -> nn.Module:
    """Monotone DEQ, trained without intervals."""
    return MonDEQ(images, MonDEQOptions(**options), eps=0.0)


@model("ibp-mondeq", group="mondeq", options=IBPMonDEQOptions, eval_options=EVAL_OPTIONS, idle=idle, recipe="ibp")
def ibp_mondeq(images: Images, **options: Any) -> nn.Module:
    """Monotone DEQ trained on interval bounds, with a certificate (Wei & Kolter 2022)."""
    chosen = IBPMonDEQOptions(**options)
    return MonDEQ(images, chosen, chosen.eps)
