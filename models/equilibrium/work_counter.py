"""How much work equilibrium models do: evaluations of f and vector–Jacobian products, per example."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Work:
    """Counts summed over examples: one call of f on a batch of N counts N."""

    f_evaluations: int = 0
    vjps: int = 0


_work: ContextVar[Work | None] = ContextVar("work", default=None)


@contextmanager
def counting() -> Iterator[Work]:
    """Everything solved inside is added to the Work it yields."""
    work = Work()
    token = _work.set(work)
    try:
        yield work
    finally:
        _work.reset(token)


def counted() -> Callable[[], AbstractContextManager[None]]:
    """Where the present caller's work is counted, for work done later by another thread.

    Autograd runs the backward of a GPU's tensors in a thread of its own, which knows nothing of the caller's context.
    """
    work = _work.get()

    @contextmanager
    def there() -> Iterator[None]:
        token = _work.set(work)
        try:
            yield
        finally:
            _work.reset(token)

    return there


def count(f_evaluations: int = 0, vjps: int = 0) -> None:
    """Called by solvers and gradients; costs nothing when nobody counts."""
    work = _work.get()
    if work is not None:
        work.f_evaluations += f_evaluations
        work.vjps += vjps
