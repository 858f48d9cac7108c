"""The DEQ family: extractor, equilibrium, Lyapunov module, orthogonal layer, classifier (Fig. 1)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from bench.models.equilibrium.deq_cell import ImplicitCell
from bench.models.equilibrium.gradient import EquilibriumCell, with_value
from bench.models.equilibrium.layer import Equilibrium
from bench.models.equilibrium.options import EVAL_OPTIONS, SolverOptions, idle
from bench.models.equilibrium.precision import full_precision
from bench.models.equilibrium.surrogate_gradients import Parts, View, state_views
from bench.models.feature_extractors import ExtractorName, make_extractor, state_size
from bench.models.images import Classifier, Images
from bench.models.lyapunov.function import Lyapunov
from bench.registry import model

Readout = Literal["field", "step", "output", "features"]
Orthogonal = Literal["none", "layer", "classifier"]
# (z, F(z), h) to what is handed on.
Stabilise = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DEQOptions(SolverOptions):
    """Options of every DEQ; each is documented in bench.toml under [options.deq]."""

    features: ExtractorName = "auto"
    state: int = 0
    orthogonality: Orthogonal = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state < 0:
            raise ValueError(f"state must be 0 (the paper's size) or positive, got {self.state}")
        if self.train_solver == "newton" or self.train_gradient == "exact":
            raise ValueError(
                "newton and exact need the Jacobian of one sample; batch statistics couple them in training"
            )


@dataclass(frozen=True)
class LyaDEQOptions(DEQOptions):
    """DEQOptions and those of the Lyapunov module."""

    readout: Readout = "field"
    alpha: float = 0.9
    eta: float = 1e-3
    d: float = 0.1
    icnn_hidden: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("eta", "d", "icnn_hidden"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")


class Stabilised(nn.Module):
    """What is handed on from the fixed point z* = f(z*, h) after the Lyapunov module.

    The paper says "the output of the Lyapunov stability module" and no more. The readings:

    - `field`: F̂(z*) = Proj(F; z*) with F(z) = f(z, h) − z, Eq. 8 to the letter;
    - `step`: z* + F̂(z*), one step of the stabilised dynamics;
    - `output`: Proj(z*; z*), the layer's output f(z*, h) = z* taken as the dynamics' value;
    - `features`: Proj(z*; h), V taken at the extractor's features.
    """

    def __init__(self, lyapunov: Lyapunov, readout: Readout, alpha: float) -> None:
        super().__init__()
        self.lyapunov, self.readout, self.alpha = lyapunov, readout, alpha

    def forward(self, z: Tensor, residual: Tensor, h: Tensor, detached: bool = False) -> Tensor:
        """Args: z = z* with its gradient, (N, n); residual = F(z*), detached; h = features; `detached`: ∇V constant."""
        if self.readout == "output":
            return self.lyapunov.project(z, z, self.alpha, detached)
        if self.readout == "features":
            return self.lyapunov.project(z, h, self.alpha, detached)
        # F(z*(x), x) = 0 for every x, so its total derivative vanishes: the gradient goes through z* alone.
        stable = self.lyapunov.project(residual, z, self.alpha, detached)
        return stable if self.readout == "field" else z + stable

    def bypassed(self, z: Tensor, residual: Tensor, h: Tensor) -> Tensor:
        """The same value, but backward passes z's gradient on as if nothing had been projected.

        `field` hands on no z to pass it to: there the slope is −α/2, exact wherever g(z) ≤ g(0).
        """
        slope = -self.alpha / 2 if self.readout == "field" else 1.0
        return with_value(slope * z, self(z, residual, h).detach())


class DEQBody(nn.Module):
    """Normalised images to logits."""

    def __init__(
        self,
        images: Images,
        options: DEQOptions,
        stabilised: Stabilised | None,
        features: int,
    ) -> None:
        super().__init__()
        self.extractor = make_extractor(images, options.features, features)
        self.equilibrium = Equilibrium(ImplicitCell(features), options.evaluation(), options.training())
        self.stabilised = stabilised
        self.orthogonal: nn.Module = nn.Identity()
        self.classifier: nn.Module = nn.Linear(features, images.classes)
        if options.orthogonality == "layer":
            self.orthogonal = orthogonal(nn.Linear(features, features, bias=False))
        elif options.orthogonality == "classifier":
            self.classifier = orthogonal(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.embed(x)))

    def embed(self, x: Tensor) -> Tensor:
        """The features behind the orthogonal layer, (N, n): what Fig. 3 shows."""
        with full_precision(self.extractor(x)) as h:
            return self._handed_on(self.equilibrium(h), h, self.stabilised)

    def views(self) -> dict[str, nn.Module]:
        """Ways to other gradients (`state_views`); with a Lyapunov module also `detached`, where ∇V is taken
        as constant, and `no-projection`, where backward passes the projection by."""
        found = state_views(
            self, lambda: Parts(self.extractor, cast(EquilibriumCell, self.equilibrium.cell), self._read)
        )
        if self.stabilised is not None:
            ways: dict[str, Stabilise] = {
                "no-projection": self.stabilised.bypassed,
                "detached": partial(self.stabilised, detached=True),
            }
            found |= {name: View(self, partial(self._through, way)) for name, way in ways.items()}
        return found

    def diagnostics(self, x: Tensor) -> dict[str, Tensor]:
        """Solver residual and iterations per image, (N,)."""
        solution = self.equilibrium.solve(self.extractor(x))
        return {"residual": solution.residual, "iterations": solution.iterations}

    def _through(self, stabilise: Stabilise, x: Tensor) -> Tensor:
        with full_precision(self.extractor(x)) as h:
            return cast(Tensor, self.classifier(self._handed_on(self.equilibrium(h), h, stabilise)))

    def _read(self, z: Tensor, h: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self._handed_on(z, h, self.stabilised)))

    def _handed_on(self, z: Tensor, h: Tensor, stabilise: Stabilise | None) -> Tensor:
        if stabilise is not None:
            z = stabilise(z, self._field(z, h), h)
        return cast(Tensor, self.orthogonal(z))

    def _field(self, z: Tensor, h: Tensor) -> Tensor:
        z, h = z.detach(), h.detach()
        return self.equilibrium.value(z, h) - z


def _build(images: Images, options: DEQOptions, stabilised: Stabilised | None = None) -> nn.Module:
    return Classifier(images, DEQBody(images, options, stabilised, _features(images, options)))


def _features(images: Images, options: DEQOptions) -> int:
    return options.state or state_size(images)


def _lyapunov(images: Images, options: LyaDEQOptions) -> nn.Module:
    lyapunov = Lyapunov(_features(images, options), options.icnn_hidden, options.eta, options.d)
    return _build(images, options, Stabilised(lyapunov, options.readout, options.alpha))


@model("deq", group="deq", options=DEQOptions, eval_options=EVAL_OPTIONS, idle=idle)
def deq(images: Images, **options: Any) -> nn.Module:
    """Deep equilibrium model (Eq. 6, 7, 11), the paper's baseline."""
    return _build(images, DEQOptions(**options))


@model(
    "deq-orth",
    group="deq",
    options=partial(DEQOptions, orthogonality="layer"),
    eval_options=EVAL_OPTIONS,
    idle=idle,
)
def deq_orth(images: Images, **options: Any) -> nn.Module:
    """DEQ with the orthogonal layer, the paper's ablation."""
    return _build(images, DEQOptions(**options))


@model(
    "lyadeq",
    group="deq",
    options=partial(LyaDEQOptions, orthogonality="layer"),
    eval_options=EVAL_OPTIONS,
    idle=idle,
)
def lyadeq(images: Images, **options: Any) -> nn.Module:
    """DEQ with the Lyapunov module (Eq. 8–12) and the orthogonal layer."""
    return _lyapunov(images, LyaDEQOptions(**options))


@model("lyadeq-no-orth", group="deq", options=LyaDEQOptions, eval_options=EVAL_OPTIONS, idle=idle)
def lyadeq_no_orth(images: Images, **options: Any) -> nn.Module:
    """LyaDEQ without the orthogonal layer."""
    return _lyapunov(images, LyaDEQOptions(**options))
