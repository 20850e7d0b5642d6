"""`modelpress train` and `modelpress zoo`: options in, tables or JSON out.

Standard output carries the result and nothing else; progress goes to standard error. Listing the zoo imports
no torch.
"""

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from models import registry
from models.errors import DataError, SourceError, TrainingError
from models.registry import ModelSpec

app = typer.Typer()

# Wide enough that no row is folded where another program reads the table.
PIPED_WIDTH = 160

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[
    int,
    typer.Option(min=0, max=2**63 - 1, help="Seed of the initial weights and of the order of the data."),
]


@app.command()
def train(
    name: Annotated[str | None, typer.Argument(help="A member of the zoo.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Train every member.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="With --all: how many at once.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="Train to completion.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a member of the zoo to its floor. An interrupted training goes on where it stopped."""
    if (name is None) is not everything:
        raise TrainingError("name one member of the zoo, or give --all")
    if name is not None:
        _train_one(name, full, seed, as_json)
        return
    from models.fleet import train_all

    failed = train_all(registry.names(), jobs, _options(full, seed, as_json))
    if failed:
        raise TrainingError(f"{len(failed)} of {len(registry.names())} did not train: {', '.join(failed)}")


@app.command()
def zoo(
    name: Annotated[str | None, typer.Argument(help="One member, to show all of it.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """List the zoo, or show one member."""
    if name is None:
        rows = [_row(registry.get(each), seed) for each in registry.names()]
        typer.echo(json.dumps(rows)) if as_json else _print_table(rows)
        return
    details = _details(registry.get(name), seed)
    typer.echo(json.dumps(details)) if as_json else _print_details(details)


def _train_one(name: str, full: bool, seed: int, as_json: bool) -> None:
    from models.zoo.member import Member

    member = Member(registry.get(name), seed, full)
    _, _, record = member.obtain()
    shown = {"name": name, "folder": str(member.folder), **record}
    typer.echo(json.dumps(shown) if as_json else _trained_line(shown))
    if not record["reached_floor"]:
        hint = "train it with --full" if member.spec.full and not full else "try another --seed"
        raise TrainingError(
            f"{name} did not reach its floor ({_floor(record)}); the weights are kept; {hint}"
        )


def _options(full: bool, seed: int, as_json: bool) -> list[str]:
    """The same options, as one member's own command takes them."""
    return [*(["--full"] if full else []), "--seed", str(seed), *(["--json"] if as_json else [])]


def _row(spec: ModelSpec, seed: int) -> dict[str, Any]:
    records = _records(spec, seed)
    return {
        "name": spec.name,
        "family": spec.family,
        "task": spec.task,
        "parameters": spec.parameters,
        "data": spec.dataset,
        "metric": spec.metric,
        "floor": spec.floor,
        "trained": {kind: record["value"] for kind, record in records.items()},
    }


def _details(spec: ModelSpec, seed: int) -> dict[str, Any]:
    from dataclasses import asdict

    answered = _sample(spec, seed)  # before the records: it may add to them
    records = _records(spec, seed)
    shown = {kind: {key: record[key] for key in record if key != "curve"} for kind, record in records.items()}
    recipes = {"training": asdict(spec.training), "full": asdict(spec.full) if spec.full else None}
    about = {
        "source": spec.source,
        "build": spec.build,
        "config": dict(spec.config),
        "full_floor": spec.full_floor,
    }
    return _row(spec, seed) | about | recipes | {"trained": shown} | answered


def _sample(spec: ModelSpec, seed: int) -> dict[str, Any]:
    """The layers, and what the member answers to one held-out example once it is trained."""
    from models.zoo.sample import architecture, sample

    return {"architecture": architecture(spec), "sample": sample(spec, seed)}


def _records(spec: ModelSpec, seed: int) -> dict[str, dict[str, Any]]:
    """The training records that this machine has, under "short" and "full".

    None without the member's data set, which a record is of, and none where one is damaged: whoever asks for
    the member itself is told so.
    """
    from models.zoo.member import Member

    try:
        found = {
            "short": Member(spec, seed).record(),
            "full": Member(spec, seed, True).record() if spec.full else None,
        }
    except (DataError, SourceError):
        return {}
    return {kind: record for kind, record in found.items() if record is not None}


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        trained = ", ".join(f"{value:.4g} ({kind})" for kind, value in row["trained"].items())
        shown = row | {"parameters": f"{row['parameters']:,}", "trained": trained or "not yet"}
        table.add_row(*(str(value) for value in shown.values()))
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)


def _print_details(details: Mapping[str, Any]) -> None:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Text of several lines stands as it is."""

    def write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Dumper.add_representer(str, write_text)
    plain = json.loads(json.dumps(details))
    typer.echo(yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True), nl=False)


def _trained_line(record: Mapping[str, Any]) -> str:
    figure = f"{record['metric']} {record['value']:.4g} (floor: {_floor(record)})"
    also = "".join(f", {metric} {value:.4g}" for metric, value in record.get("also", {}).items())
    spent = f"{record['steps']} steps, {record['seconds']:.0f} s"
    return f"{record['name']}: {figure}{also}, {spent}, in {record['folder']}"


def _floor(record: Mapping[str, Any]) -> str:
    named = isinstance(record["floor"], str)
    return f"{record['floor']} {record['floor_value']:.4g}" if named else f"{record['floor_value']:.4g}"
