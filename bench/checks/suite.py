"""`bench check NAME`: the contract suite for a model, an attack or a data set."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.attacks.core.contract import ContractError
from bench.checks.attacks import attack_points
from bench.checks.datasets import dataset_points
from bench.checks.models import NotJudgedError, model_points
from bench.errors import BenchError, first_line, unknown
from bench.registry import attack, dataset, model
from bench.settings.config import Config
from bench.settings.specs import parse_model, parse_spec

# A point of the contract: what is asked, and a test that returns why it fails, or nothing.
Point = tuple[str, Callable[[], str | None]]


@dataclass(frozen=True)
class CheckResult:
    """One point of the contract and whether it holds; `why` is a sentence. A point that cannot be judged passes."""

    what: str
    passed: bool
    why: str = ""

    @property
    def mark(self) -> str:
        """As it is printed."""
        return "FAIL" if not self.passed else "n/a" if self.why else "ok"


def check_name(name: str, config: Config) -> list[CheckResult]:
    """Test every point of the contract of what `name` names. Raises BenchError where it names nothing."""
    return [_test(point) for point in _points(name, config)]


def _points(name: str, config: Config) -> Iterator[Point]:
    architecture = parse_model(name).architecture.name
    if architecture in model or architecture in config.models:
        yield from model_points(name, config)
    elif architecture in dataset or architecture in config.datasets:
        yield from dataset_points(name, config)
    elif architecture in attack:
        yield from attack_points(parse_spec(name))
    else:
        every = [name for registry in (model, attack, dataset) for name in registry.names()]
        raise unknown("model, attack or data set", name, every)


def _test(point: Point) -> CheckResult:
    what, test = point
    try:
        why = test()
    except NotJudgedError as reason:
        return CheckResult(what, True, str(reason))
    except (BenchError, ContractError) as error:
        why = str(error)
    except Exception as error:
        why = f"it raised {first_line(error)}"
    return CheckResult(what, why is None, why or "")
