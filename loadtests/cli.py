"""`modelpress loadtest`: options in, one run, the result out.

Exit code 0 is a pass, 1 a missed objective, 2 an invalid run or a wrong input.

Standard output carries the result and nothing else; progress and complaints go to standard error. What the
run needs is imported when it runs, so that `--help` is instant.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadtests.errors import LoadTestError

if TYPE_CHECKING:
    from loadtests.result import Result

EXIT_CODES = {"pass": 0, "fail": 1, "invalid": 2}

app = typer.Typer(add_completion=False)


@app.command()
def loadtest(
    scenario: Annotated[
        Path, typer.Argument(help="A scenario file, or the name of a shipped one: digits, complete.")
    ],
    url: Annotated[str, typer.Option(help="The server's address, such as http://127.0.0.1:3000.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the result, as JSON, to this file.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests per second, instead of the scenario's.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Measured seconds, instead of the scenario's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another draw of the same scenario.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to ask, instead of the scenario's.")] = None,
) -> None:
    """Measure a deployment over HTTP, every latency from the moment its request was planned."""
    try:
        result = _measure(scenario, url, out, rate, duration, seed, model)
        _deliver(result, as_json, out)
    except LoadTestError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as interrupt:
        typer.echo("error: interrupted before anything was measured", err=True)
        raise typer.Exit(2) from interrupt
    for reason in result.invalid:
        typer.echo(f"invalid run: {reason}", err=True)
    raise typer.Exit(EXIT_CODES[result.outcome])


def _measure(
    path: Path,
    url: str,
    out: Path | None,
    rate: float | None,
    duration: float | None,
    seed: int | None,
    model: str | None,
) -> "Result":
    from loadtests import progress, result, scenario, session

    chosen = scenario.override(scenario.load(path), rate=rate, duration=duration, seed=seed, model=model)
    if out is not None:
        result.check_writable(out)
    recording = session.run(chosen, url, watch=progress.live(chosen.warmup + chosen.duration))
    return result.build(chosen, url, recording)


def _deliver(measured: "Result", as_json: bool, out: Path | None) -> None:
    """Print even if the file cannot be written: what was measured must not be lost with a full disk."""
    from rich.console import Console

    from loadtests import report, result

    try:
        if out is not None:
            result.write(measured, out)
    finally:
        if as_json:
            typer.echo(measured.model_dump_json())
        else:
            Console().print(report.render(measured))
