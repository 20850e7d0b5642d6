"""The page around everything: template, style and what they are filled with.

The template escapes all that it is given, except for the drawings, which escaped their own texts. A content
security policy refuses whatever a browser would load from elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from compress.reporting import tables, words
from compress.reporting.group import Group, Variant
from compress.reporting.plots import drop_figures, latency_figures, percentile, rate, served_figures
from compress.reporting.samples import comparisons, without_samples
from compress.reporting.scatter import scatter_figures
from compress.reporting.sensitivity import sensitivity_figures, sensitivity_tables
from compress.reporting.served import LoadTest

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure in large type, and what it is about."""

    value: str
    about: str


def render(groups: Sequence[Group]) -> str:
    """The whole HTML document."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    models = [_model(group) for group in groups]
    return environment.get_template("page.html").render(style=style, models=models)


def _model(group: Group) -> dict[str, object]:
    best = group.best()
    return {
        "name": group.name,
        "headline": words.headline(group),
        "choice": words.choice(group),
        "tiles": list(_tiles(best)) if best else [],
        "sentences": [_sentence(variant) for variant in group.compressed],
        "figures": [
            *scatter_figures(group),
            *drop_figures(group),
            *latency_figures(group),
            *served_figures(group),
            *sensitivity_figures(group),
        ],
        "missing": list(_missing(group)),
        "tables": [*tables.tables(group), *sensitivity_tables(group)],
        "comparisons": comparisons(group),
        "without_samples": list(without_samples(group)),
        "machines": tables.machines(group),
        "versions": tables.versions(group),
        "bundles": [_bundle(variant) for variant in group.variants],
    }


def _tiles(best: Variant) -> list[Tile]:
    """The best variant's figures, one of each kind that was measured."""
    evidence, quality = best.evidence, best.quality
    if evidence is None or quality is None:
        return []
    tiles = [
        Tile(
            words.size_sentence(evidence),
            f"{words.megabytes(evidence.size_bytes)} of {words.megabytes(evidence.baseline_size_bytes)}",
        ),
        Tile(words.change(quality), f"{quality.metric}, 95% interval {words.drop_interval(quality)}"),
        *(
            Tile(
                words.times(record.speedup),
                f"the baseline's speed at {record.workload}, "
                f"95% interval {words.times_interval(record.speedup_interval)}",
            )
            for record in evidence.latency[:1]
        ),
    ]
    if isinstance(best.served, LoadTest) and best.served.summary.latency_ms:
        tiles.append(_served_tile(best.served))
    return tiles


def _served_tile(result: LoadTest) -> Tile:
    p50, p99 = (percentile(result.summary.latency_ms, name) for name in ("p50", "p99"))
    invalid = ", no valid measurement" if result.outcome == "invalid" else ""
    return Tile(f"{p50} / {p99} ms", f"served p50 / p99 at {rate(result)}{invalid}")


def _sentence(variant: Variant) -> dict[str, object]:
    return {
        "text": words.variant_sentence(variant),
        "hue": variant.hue,
        "warnings": list(words.warnings(variant)),
    }


def _missing(group: Group) -> list[str]:
    """The plots that are not there, and why."""
    found = {
        f"Quality: {words.MISSING}; there was no labelled data.": group.metrics,
        f"Latency in process: {words.MISSING}.": group.workloads,
        f"Served latency: {words.MISSING}; there are no load-test results.": [
            variant for variant in group.variants if variant.served
        ],
    }
    return [text for text, present in found.items() if not present]


def _bundle(variant: Variant) -> dict[str, object]:
    manifest = variant.manifest
    return {
        "tag": manifest.tag,
        "version": manifest.version or "not sealed",
        "task": manifest.task,
        "source": manifest.lineage.source,
        "seed": manifest.provenance.seed,
        "data": manifest.provenance.data_fingerprint or "not recorded",
        "steps": tables.lineage(manifest),
        "recipe": tables.recipe(manifest),
    }
