"""`bench check`: does a model, an attack or a data set keep its contract?"""

from typing import Annotated

import typer

from bench.cli.options import Checkpoints, ConfigFile, DataDir, DatasetNames, Plugin, settings
from bench.cli.request import fail


def check(
    name: Annotated[str, typer.Argument(help="A registered model, attack or data set.")],
    dataset: DatasetNames = None,
    data_dir: DataDir = None,
    checkpoints: Checkpoints = None,
    config: ConfigFile = None,
    plugin: Plugin = None,
) -> None:
    """Run the contract suite on a model, attack or data set; every failure is explained in a sentence."""
    merged, failures = settings(config, plugin, datasets=dataset, data=data_dir, checkpoints=checkpoints)
    from bench.checks.suite import check_name

    findings = check_name(name, merged)
    for finding in findings:
        typer.echo(f"{finding.mark:<4}  {finding.what}{': ' + finding.why if finding.why else ''}")
    broken = [finding.what for finding in findings if not finding.passed]
    fail(
        [f"{name} breaks {len(broken)} of {len(findings)} points of its contract: {'; '.join(broken)}."]
        if broken
        else [],
        failures,
    )
