"""`bench doctor`: is the environment sound?"""

import typer

from bench.cli.options import ConfigFile, Plugin, settings
from bench.cli.request import fail


def doctor(config: ConfigFile = None, plugin: Plugin = None) -> None:
    """Check the environment: versions, device, known traps; says how to repair what is wrong."""
    from bench.checks.installation import examine

    _, failures = settings(config, plugin)
    findings = examine()
    for finding in findings:
        typer.echo(f"{finding.state:<5} {finding.what}")
    fail([finding.what for finding in findings if finding.state == "FAIL"], failures)
