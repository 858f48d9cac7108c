"""From planned rows whose weights are there to ready rows: the cells, and what keys them."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from bench.data.load import Dataset
from bench.errors import BenchError, first_line
from bench.evaluation.certificates import CERTIFICATE, IMPLEMENTATION, Certificate, certificates
from bench.evaluation.input_space import space_of
from bench.evaluation.offered_views import look_inside
from bench.execution.matrix_rows import AttackPlan, Matrix, PlannedRow, ReadyRow, Row, failed
from bench.execution.model_sources import ModelSource, model_source
from bench.registry import protocol
from bench.settings.config import Config
from bench.store.cells import Cell, engine_for
from bench.store.identity import ENGINES, CellIdentity
from bench.training.checkpoint_choice import trained
from bench.training.checkpoint_files import read_card
from bench.training.job_identity import Job
from bench.training.loop import build_model


def with_stored_cells(matrix: Matrix, config: Config, device: str) -> Matrix:
    """The matrix with the cells of every planned row whose weights are there; the others are left as they are."""

    def ready(row: Row) -> Row:
        if not isinstance(row, PlannedRow) or not all(trained(job, config.paths.checkpoints) for job in row.jobs):
            return row
        try:
            return ready_row(row, matrix, config, device)
        except BenchError as error:
            return failed(row, str(error))
        except (Exception, SystemExit) as error:  # of weights that cannot be hashed, say: the other rows go on
            return failed(row, f"{row.label}: its weights cannot be read, {first_line(error)}.")

    return matrix.with_rows([ready(row) for row in matrix.rows])


def ready_row(row: PlannedRow, matrix: Matrix, config: Config, device: str) -> ReadyRow:
    """The row with its cells, and those of its certificates; its weights, and its twins', are there.

    A nested attack's cells form a chain of ascending radii. Raises BenchError for a missing or damaged card.
    """
    job, data, checkpoints = row.job, matrix.data[row.dataset], config.paths.checkpoints
    net = build_model(job, data)
    own = model_source(row.label, job, data, checkpoints, net)
    twins = {name: model_source(twin.label, twin, data, checkpoints) for name, twin in row.twins.items()}
    placed: dict[int, Cell] = {}
    for position, plan in sorted(enumerate(matrix.attacks), key=lambda item: item[1].eps):
        traits = plan.entry.traits
        twin = twins.get(str(plan.options[traits.twin])) if traits.twin else None
        smaller = _next_smaller(plan, placed.values()) if traits.nested else None
        placed[position] = _cell(plan, own, twin, smaller, matrix, config, device=device, dataset=row.dataset)
    proofs = certificates(net) if space_of(protocol[config.run.protocol]) == "pixel" else []
    proven = [_certificate(proof, eps, own, data, config, device) for proof in proofs for eps in matrix.eps]
    planned = tuple((plan, placed[position]) for position, plan in enumerate(matrix.attacks))
    note = ", ".join(filter(None, [row.note, _reduced(job, checkpoints)]))
    return ReadyRow(row, planned, tuple(proven), note, look_inside(net, job.options))


def _cell(
    plan: AttackPlan,
    own: ModelSource,
    twin: ModelSource | None,
    smaller: Cell | None,
    matrix: Matrix,
    config: Config,
    *,
    device: str,
    dataset: str,
) -> Cell:
    data, how, traits = matrix.data[dataset], protocol[config.run.protocol], plan.entry.traits
    engine = engine_for(plan.entry, config.run.engine)
    below = () if smaller is None else (*(smaller.identity.chain or ()), smaller.eps)
    identity = CellIdentity(
        model=own.identity,
        dataset=data.name,
        test_hash=data.test_hash,
        protocol=how.name,
        protocol_implementation=how.implementation(),
        attack=plan.entry.name,
        attack_implementation=plan.entry.implementation(),
        attack_options=plan.options,
        eps=plan.eps,
        seed=config.run.seed,
        device=device,
        engine=engine,
        engine_version=ENGINES[engine],
        batch=config.run.batch_size,
        twin=twin.identity if twin else None,
        chain=below if traits.nested else None,
    )
    return Cell(own.source, identity, len(data.x_test), plan.label, twin.source if twin else None, smaller)


def _certificate(
    proof: Certificate, eps: Fraction, own: ModelSource, data: Dataset, config: Config, device: str
) -> Cell:
    """A cell of the model's own proofs, which depend on no protocol and draw nothing."""
    identity = CellIdentity(
        model=own.identity,
        dataset=data.name,
        test_hash=data.test_hash,
        protocol=CERTIFICATE,
        protocol_implementation=IMPLEMENTATION,
        attack=CERTIFICATE,
        attack_implementation=IMPLEMENTATION,
        attack_options=proof.options,
        eps=eps,
        seed=0,
        device=device,
        engine="reference",
        engine_version=ENGINES["reference"],
        batch=config.run.batch_size,
    )
    return Cell(own.source, identity, len(data.x_test), proof.label)


def _next_smaller(plan: AttackPlan, cells: Iterable[Cell]) -> Cell | None:
    """The cell of the same attack at the largest radius below the plan's."""
    below = [c for c in cells if (c.attack, c.attack_label) == (plan.entry.name, plan.label) and c.eps < plan.eps]
    return max(below, key=lambda cell: cell.eps, default=None)


def _reduced(job: Job, checkpoints: Path) -> str:
    """What the card says of a training set that is smaller than published."""
    reduced = "" if job.pretrained else read_card(job.checkpoint(checkpoints)).get("training_set", {}).get("reduced")
    return f"reduced: {reduced}" if reduced else ""
