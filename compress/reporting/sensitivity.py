"""What rounding each weight alone did to the outputs, as `quantize: mixed` measured it: a plot and a table.

Both go by what the step recorded, and show the most sensitive weights first.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from compress.reporting import words
from compress.reporting.group import Group, Variant
from compress.reporting.plots import Figure
from compress.reporting.rows import LEFT, RIGHT, Draw, Row, rows_plot
from compress.reporting.svg import Axis, dot, logarithmic_if_wide
from compress.reporting.tables import Table

# A plot of every weight of a large model could not be read; the table has them all.
MOST = 12

Measured = Mapping[str, Any]


def sensitivity_figures(group: Group) -> Iterator[Figure]:
    """A plot for each variant whose bits were chosen by measurement."""
    for variant in group.variants:
        drawn = [(name, row) for name, row in _measured(variant) if row["4"] > 0 and row["8"] > 0][:MOST]
        if not drawn:
            continue
        title = f"Sensitivity to rounding: {variant.name}"
        axis = logarithmic_if_wide([row[bits] for _, row in drawn for bits in ("4", "8")], LEFT, RIGHT)
        rows = [Row(name, f"stored in {row['bits']} bits", variant.hue, _draw(row)) for name, row in drawn]
        svg = rows_plot(title, rows, axis, "change of the outputs, this weight alone rounded")
        yield Figure(title, _CAPTION, svg)


def sensitivity_tables(group: Group) -> Iterator[Table]:
    """Every weight of those variants, and the change in each format."""
    headings = ("weight", "stored in bits", "change at 4 bits", "at 8 bits", "at 16 bits")
    for variant in group.variants:
        if measured := _measured(variant):
            rows = [
                (name, str(row["bits"]), *(words.number(row[bits]) for bits in ("4", "8", "16")))
                for name, row in measured
            ]
            yield Table(f"Sensitivity to rounding: {variant.name}", headings, rows)


def _measured(variant: Variant) -> list[tuple[str, Measured]]:
    found: dict[str, Measured] = {}
    for step in variant.manifest.lineage.steps:
        found.update(step.figures.get("sensitivity", {}))
    return sorted(found.items(), key=lambda item: -item[1]["4"])


def _draw(row: Measured) -> Draw:
    def draw(axis: Axis, y: float) -> Sequence[Markup]:
        return tuple(dot(axis.at(row[bits]), y, style) for bits, style in (("4", "point"), ("8", "ring")))

    return draw


_CAPTION = (
    "Filled: in 4 bits. Ring: in 8. For logits the Kullback-Leibler divergence in nats, for other outputs "
    f"the squared error relative to their energy. The {MOST} most sensitive weights; the table has all."
)
