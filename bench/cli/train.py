"""`bench train`: checkpoints, without attacking them."""

from bench.cli import request as program
from bench.cli.request import Request, fail, job_command


@job_command
def train(request: Request) -> None:
    """Train models; goes on where an earlier run was stopped."""
    from bench.cli.printing import print_cards
    from bench.execution.plan import plan_matrix
    from bench.execution.run import train_missing
    from bench.system.environment import pick_device

    config = request.config
    matrix = plan_matrix(config, request.epochs, request.failures, as_named=True)
    matrix = train_missing(matrix, config, pick_device(config.run.device), allowed=True, debug=program.debugging)
    print_cards(matrix, config)
    fail(matrix.failures, request.failures)
