"""`modelpress loadtest`: options in, runs, the result out.

`modelpress loadtest SCENARIO` is short for `modelpress loadtest run SCENARIO`. Exit code 0 is a pass, 1 a
missed objective (or a comparison that came out worse), 2 an invalid run or a wrong input, 130 and 143 a run
that Ctrl-C or SIGTERM ended.

Standard output carries the result and nothing else; progress and complaints go to standard error. What the
runs need is imported when they run, so that `--help` is instant.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from loadtests.errors import InvalidOption, LoadTestError
from loadtests.interruption import calling, heeded

if TYPE_CHECKING:
    from pydantic import BaseModel

    from loadtests.compare import Comparison
    from loadtests.documents import Document
    from loadtests.point import Series
    from loadtests.result import Result
    from loadtests.scenario import Scenario

EXIT_CODES = {"pass": 0, "fail": 1, "invalid": 2}
INTERRUPTED_EARLY = "interrupted before anything was measured"


class _RunByDefault(TyperGroup):
    """What is no command's name is a scenario's, to be run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measure a deployment over HTTP. `loadtest SCENARIO` is short for `loadtest run SCENARIO`.",
)

ScenarioName = Annotated[Path, typer.Argument(help="A scenario file, or the name of a shipped one.")]
Url = Annotated[str, typer.Option(help="The server's address, such as http://127.0.0.1:3000.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")]
Out = Annotated[Path | None, typer.Option(help="Write the result, as JSON, to this file.")]
Html = Annotated[Path | None, typer.Option(help="Write a page with drawings to this file.")]
Rate = Annotated[float | None, typer.Option(help="Requests per second, instead of the scenario's.")]
Duration = Annotated[float | None, typer.Option(help="Measured seconds, instead of the scenario's.")]
Seed = Annotated[int | None, typer.Option(help="Another draw of the same scenario.")]
Model = Annotated[str | None, typer.Option(help="The model to ask, instead of the scenario's.")]
Processes = Annotated[int, typer.Option(min=1, help="Generators on this machine that share the plan.")]


@app.command()
def run(
    scenario: ScenarioName,
    url: Url,
    as_json: AsJson = False,
    out: Out = None,
    html: Html = None,
    openmetrics: Annotated[Path | None, typer.Option(help="Write an OpenMetrics file.")] = None,
    rate: Rate = None,
    duration: Duration = None,
    seed: Seed = None,
    model: Model = None,
    processes: Processes = 1,
    shard: Annotated[str | None, typer.Option(help="This generator's part of the plan: 0/4 to 3/4.")] = None,
    start_at: Annotated[float | None, typer.Option(help="When to start, in Unix seconds.")] = None,
    tell: Annotated[Path | None, typer.Option(hidden=True, help="Say here where the run stands.")] = None,
    quiet: Annotated[bool, typer.Option(help="Print nothing but complaints.")] = False,
) -> None:
    """Measure a deployment over HTTP, every latency from the moment its request was planned."""
    with _complaints():
        chosen = _load(scenario, rate, duration, seed, model)
        _check({"--out": out, "--html": html, "--openmetrics": openmetrics})
        result = _measure(chosen, url, processes, shard, start_at, tell)
        _deliver_run(result, as_json, quiet, {"out": out, "html": html, "openmetrics": openmetrics})
        _leave(result)


@app.command()
def quick(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server's address.")],
    model: Model = None,
    seconds: Annotated[float, typer.Option(min=2, max=3600, help="How long it may take.")] = 30,
    as_json: AsJson = False,
    out: Out = None,
    html: Html = None,
) -> None:
    """Find out what an address speaks, and give a first honest answer in half a minute."""
    from loadtests import quick as quickly

    with _complaints():
        _check({"--out": out, "--html": html})
        request = quickly.find(url, model)
        _say(f"{url} speaks {request.dialect}: {request.target}")
        result, cut = quickly.measure(request, seconds, lambda chosen: _measure(chosen, url), _say)
        _deliver_run(result, as_json, False, {"out": out, "html": html})
        if cut:
            raise LoadTestError(cut)
        _leave(result)


@app.command()
def sweep(
    scenario: ScenarioName,
    url: Url,
    rates: Annotated[str, typer.Option(help="Requests a second, such as 10,20,40.")] = "",
    users: Annotated[str, typer.Option(help="Users of a closed loop, such as 1,2,4,8.")] = "",
    duration: Duration = None,
    model: Model = None,
    as_json: AsJson = False,
    out: Out = None,
    html: Html = None,
) -> None:
    """Measure a scenario at several loads, and find the knee of throughput against latency."""
    from loadtests import sweep as sweeping

    with _complaints():
        if bool(rates) == bool(users):
            raise InvalidOption("give either --rates or --users")
        chosen = _load(scenario, None, duration, None, model)
        _check({"--out": out, "--html": html})
        measure = _each(url)
        if rates:
            series = sweeping.at_rates(chosen, _numbers("--rates", rates), measure)
        else:
            series = sweeping.at_users(chosen, _whole_numbers("--users", users), measure)
        _deliver_series(series, as_json, False, {"out": out, "html": html})
        _leave_series(series, 0)


@app.command()
def search(
    scenario: ScenarioName,
    url: Url,
    rate: Annotated[float, typer.Option(help="The first rate to try.")] = 1.0,
    precision: Annotated[float, typer.Option(min=0.001, help="How near pass and fail must come.")] = 0.05,
    repeats: Annotated[int, typer.Option(min=1, help="Runs at one rate until it is clear.")] = 3,
    duration: Duration = None,
    model: Model = None,
    as_json: AsJson = False,
    out: Out = None,
    html: Html = None,
) -> None:
    """Find the highest rate that meets the scenario's objectives."""
    from loadtests.search import search as find

    with _complaints():
        chosen = _load(scenario, None, duration, None, model)
        _check({"--out": out, "--html": html})
        series = find(chosen, _each(url), rate, precision, repeats)
        _deliver_series(series, as_json, False, {"out": out, "html": html})
        _leave_series(series, 0 if series.highest_pass else 1)


@app.command()
def compare(
    scenario: ScenarioName,
    url: Annotated[list[str], typer.Option(help="The server's address; twice for two servers.")],
    model: Annotated[list[str] | None, typer.Option(help="Give two to compare models.")] = None,
    pairs: Annotated[int, typer.Option(help="Runs on each side.")] = 10,
    rate: Rate = None,
    duration: Duration = None,
    seed: Seed = None,
    as_json: AsJson = False,
    out: Out = None,
    html: Html = None,
) -> None:
    """Tell whether the second of two deployments is better or worse than the first."""
    from loadtests.compare import Target
    from loadtests.compare import compare as judge

    with _complaints():
        _check({"--out": out, "--html": html})
        urls, models = _both("--url", url), _both("--model", model or [""])
        targets = [
            Target(f"{u} {m}".strip(), u, _load(scenario, rate, duration, seed, m or None))
            for u, m in zip(urls, models, strict=True)
        ]
        comparison = judge((targets[0], targets[1]), pairs, lambda chosen, u: _measure(chosen, u))
        _deliver_comparison(comparison, as_json, False, {"out": out, "html": html})
        for reason in comparison.invalid:
            _say(f"invalid run: {reason}")
        raise typer.Exit(2 if comparison.invalid else 1 if comparison.verdict == "worse" else 0)


@app.command()
def merge(
    results: Annotated[list[Path], typer.Argument(help="What each shard's --out has written.")],
    as_json: AsJson = False,
    out: Out = None,
    html: Html = None,
) -> None:
    """Put the results of all shards of one run together."""
    from loadtests import documents, shards

    with _complaints():
        _check({"--out": out, "--html": html})
        result = shards.merge([documents.read_run(path) for path in results])
        _deliver_run(result, as_json, False, {"out": out, "html": html})
        _leave(result)


@app.command()
def report(
    result: Annotated[Path, typer.Argument(help="What --out has written.")],
    html: Annotated[Path | None, typer.Option(help="Write a page with drawings to this file.")] = None,
) -> None:
    """Show a result again, of a run, a sweep, a search or a comparison: on the terminal or as a page."""
    from loadtests import documents

    with _complaints():
        _check({"--html": html})
        _deliver_any(documents.read(result), html is not None, {"html": html})


def _load(
    path: Path, rate: float | None, duration: float | None, seed: int | None, model: str | None
) -> "Scenario":
    from loadtests import scenario

    return scenario.override(scenario.load(path), rate=rate, duration=duration, seed=seed, model=model)


def _measure(
    scenario: "Scenario",
    url: str,
    processes: int = 1,
    shard: str | None = None,
    start_at: float | None = None,
    tell: Path | None = None,
) -> "Result":
    from loadtests import address, progress, result, session, shards, standing

    address.parse(url)
    if processes > 1:
        if shard is not None:
            raise InvalidOption("--shard: a shard is one process")
        return shards.run(scenario, url, processes, start_at)
    part = shards.parse(shard or "0/1")
    watch = standing.telling(tell) if tell else progress.live(scenario.span)
    recording = session.run(scenario, url, watch, part, start_at)
    return result.build(scenario, url, recording, (part.index, part.count))


def _each(url: str) -> Any:
    """Measures, and says in a line what came of it."""
    from loadtests import terminal

    def measure(scenario: "Scenario") -> "Result":
        result = _measure(scenario, url)
        _say(terminal.one_line(result))
        return result

    return measure


def _check(paths: dict[str, Path | None]) -> None:
    from loadtests.output import check_writable

    given = {option: path for option, path in paths.items() if path is not None}
    for option, path in given.items():
        check_writable(path, option)
        if other := next(
            (o for o, p in given.items() if o != option and p.resolve() == path.resolve()), None
        ):
            raise InvalidOption(f"{option} {path}: {other} is to be written there, too")


def _deliver_run(result: "Result", as_json: bool, quiet: bool, paths: dict[str, Path | None]) -> None:
    from loadtests import openmetrics, terminal
    from loadtests.html import page

    texts = {
        "out": lambda: result.model_dump_json(indent=1),
        "html": lambda: page.of_run(result),
        "openmetrics": lambda: openmetrics.text(result),
    }
    _deliver(result, terminal.render(result), as_json, quiet, texts, paths)


def _deliver_series(series: "Series", as_json: bool, quiet: bool, paths: dict[str, Path | None]) -> None:
    from loadtests import terminal
    from loadtests.html import page

    texts = {"out": lambda: series.model_dump_json(indent=1), "html": lambda: page.of_series(series)}
    _deliver(series, terminal.render_series(series), as_json, quiet, texts, paths)


def _deliver_comparison(
    comparison: "Comparison", as_json: bool, quiet: bool, paths: dict[str, Path | None]
) -> None:
    from loadtests import terminal
    from loadtests.html import page

    texts = {
        "out": lambda: comparison.model_dump_json(indent=1),
        "html": lambda: page.of_comparison(comparison),
    }
    _deliver(comparison, terminal.render_comparison(comparison), as_json, quiet, texts, paths)


def _deliver_any(document: "Document", quiet: bool, paths: dict[str, Path | None]) -> None:
    from loadtests.point import Series
    from loadtests.result import Result

    if isinstance(document, Result):
        _deliver_run(document, False, quiet, paths)
    elif isinstance(document, Series):
        _deliver_series(document, False, quiet, paths)
    else:
        _deliver_comparison(document, False, quiet, paths)


def _deliver(
    document: "BaseModel",
    shown: Any,
    as_json: bool,
    quiet: bool,
    texts: dict[str, Any],
    paths: dict[str, Path | None],
) -> None:
    """Write each file even if another cannot be, and then print: no full disk may lose what was measured."""
    from rich.console import Console

    from loadtests.output import write

    failures: list[LoadTestError] = []
    with calling(lambda: None):  # a signal that comes now finds nothing to end: it says the exit code
        try:
            for name, path in paths.items():
                if path is not None:
                    try:
                        write(texts[name](), path, f"--{name}")
                    except LoadTestError as error:
                        failures.append(error)
        finally:
            if as_json:
                typer.echo(document.model_dump_json())
            elif failures or not quiet:
                Console().print(shown)
    if failures:
        raise failures[0]


@contextmanager
def _complaints() -> Iterator[None]:
    """One line and exit code 2 for what a user can do something about; the signal's own if one has come."""
    with heeded() as signals:
        try:
            yield
        except LoadTestError as error:
            _say(f"error: {error}")
            raise typer.Exit(signals.exit_code or 2) from error
        except KeyboardInterrupt as interrupt:
            _say(f"error: {'interrupted again' if signals.impatient else INTERRUPTED_EARLY}")
            raise typer.Exit(signals.exit_code or 2) from interrupt
        except typer.Exit as leaving:
            raise typer.Exit(signals.exit_code or leaving.exit_code) from None


def _nothing_valid(series: "Series") -> bool:
    """Whether the series was cut short, or is of the generator's own limits."""
    return series.interrupted or all(point.outcome == "invalid" for point in series.points)


def _leave_series(series: "Series", code: int) -> NoReturn:
    if series.interrupted:
        _say(f"error: {series.note}")
    raise typer.Exit(2 if _nothing_valid(series) else code)


def _leave(result: "Result") -> NoReturn:
    for reason in result.invalid:
        _say(f"invalid run: {reason}")
    raise typer.Exit(EXIT_CODES[result.outcome])


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _numbers(option: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidOption(f"{option} {text}: numbers with commas between them, such as 1,2,4") from error
    if not all(0 < number < math.inf for number in numbers):
        raise InvalidOption(f"{option} {text}: every one must be above 0, and finite")
    return numbers


def _whole_numbers(option: str, text: str) -> list[int]:
    numbers = _numbers(option, text)
    if not all(map(float.is_integer, numbers)):
        raise InvalidOption(f"{option} {text}: whole numbers, such as 1,2,4")
    return list(map(int, numbers))


def _both(option: str, given: list[str]) -> list[str]:
    """The values of the two sides: the same where one is given."""
    if len(given) > 2:
        raise InvalidOption(f"{option}: two can be compared, not {len(given)}")
    return [given[0], given[-1]]
