"""`modelpress compress`, `list`, `show`, `report` and `demo`: options in, tables or JSON out.

Standard output carries the result and nothing else; progress goes to standard error.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress.errors import GateError

if TYPE_CHECKING:
    from compress.pipeline import Result
    from runtime.bundle import Bundle

app = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def compress(
    recipes: Annotated[list[Path], typer.Argument(help="Recipe files, run in order.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write each bundle as a folder below this one.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Publish even what the gate refuses.")] = False,
    as_json: Json = False,
) -> None:
    """Run recipes: compress, measure against the original, and publish what passes the gate.

    It stops at the first that cannot work.
    """
    from compress.pipeline import run
    from compress.progress import Narrator
    from compress.publish import check_folder, export_folder
    from compress.recipe import load_recipe

    if out is not None:
        check_folder(out)
    loaded = [load_recipe(path) for path in recipes]
    refused = []
    rows = []
    try:
        for path, recipe in zip(recipes, loaded, strict=True):
            result = run(recipe, Narrator(str(path)))
            rows.append(row := _publish(result, force))
            if row["tag"] and out is not None:
                row["folder"] = str(export_folder(result.bundle, out / row["manifest"].tag).path)
            refused += [f"{path}: {failure}" for failure in result.verdict.failures if not force]
    finally:  # what was published before another recipe failed is no less published
        if rows:
            _print_results(rows, as_json)
    if refused:
        raise GateError("; ".join(refused) + "; not published (--force publishes it all the same)")


@app.command("list")
def list_bundles(as_json: Json = False) -> None:
    """List the published bundles with what was measured on them."""
    from compress.publish import published

    bundles = list(published())
    if as_json:
        typer.echo(json.dumps([bundle.manifest.model_dump(mode="json") for bundle in bundles]))
    elif bundles:
        _print_table(bundles)
    else:
        typer.echo("no bundles yet; make one with `modelpress compress recipes/digits-int8.yaml`")


@app.command()
def show(
    bundle: Annotated[str, typer.Argument(help="A tag such as lenet5-int8-static, or a folder.")],
    as_json: Json = False,
) -> None:
    """Show one bundle's manifest: what it is, where it comes from, what was measured."""
    from compress.publish import find

    manifest = find(bundle).manifest
    if as_json:
        typer.echo(manifest.model_dump_json())
        return
    from rich.console import Console

    from compress.table import describe

    Console().print(describe(manifest))


@app.command()
def report(
    bundles: Annotated[
        list[str] | None, typer.Argument(help="Tags or folders; none: the newest of each in the store.")
    ] = None,
    served: Annotated[
        Path | None, typer.Option(help="A folder of load-test results, NAME-VARIANT.json.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page: quality against size, latency by variant, samples side by side."""
    from compress.publish import find, newest
    from compress.report import write_report

    chosen = [find(bundle) for bundle in bundles] if bundles else newest()
    write_report([bundle.manifest for bundle in chosen], out, served)
    typer.echo(f"wrote {out}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the report and the load-test results go.")] = Path("out"),
    as_json: Json = False,
) -> None:
    """Train two models, compress each several ways, serve them, question them, load-test them, report."""
    from compress.demo import run_demo

    run_demo(out, as_json)


def _publish(result: "Result", force: bool) -> dict[str, Any]:
    from compress.publish import publish

    manifest = result.bundle.manifest
    row: dict[str, Any] = {
        "tag": None,
        "passed": result.verdict.passed,
        "failures": list(result.verdict.failures),
        "notes": list(result.verdict.notes),
        "cached": all(stage.cached for stage in result.stages),
        "manifest": manifest,
    }
    if result.verdict.passed or force:
        row["tag"], bundle = publish(result.bundle)
        row["manifest"] = bundle.manifest
    return row


def _print_results(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        plain = [{**row, "manifest": row["manifest"].model_dump(mode="json")} for row in rows]
        typer.echo(json.dumps(plain))
        return
    from rich.console import Console

    from compress.table import bundle_tables

    console = Console()
    console.print(bundle_tables([row["manifest"] for row in rows]))
    for row in rows:
        for note in row["notes"]:
            console.print(f"note: {row['manifest'].tag}: {note}")
        if row["tag"]:
            console.print(f"published {row['tag']}")


def _print_table(bundles: "list[Bundle]") -> None:
    from rich.console import Console

    from compress.table import bundle_tables

    Console().print(bundle_tables([bundle.manifest for bundle in bundles]))
