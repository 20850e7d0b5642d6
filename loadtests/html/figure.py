"""A drawing with its title, its key and what there is to say about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Figure:
    """`key` names the hues that occur, as (class, text)."""

    title: str
    svg: Markup
    caption: str
    key: Sequence[tuple[str, str]] = ()
