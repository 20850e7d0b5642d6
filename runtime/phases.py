"""Which of a decoder's graphs runs a call: decided by how many tokens the call computes.

No one precision is the fastest at every size: a single row is bound by reading weights, many are bound by
arithmetic. The graphs share one KV cache, so a sequence passes from one to another between any two tokens.
The trade-off: a request's logits then depend, a little, on how many others run beside it; how much is
measured and stands in the bundle's evidence.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.embedding import Embedding
from runtime.manifest import DecoderGraph
from runtime.session import open_session


@dataclass(frozen=True, slots=True)
class Phase:
    """A graph's session, for calls of at least `from_tokens` tokens (rows times length).

    `embedding` is that of a graph that takes rows instead of tokens.
    """

    from_tokens: int
    file: str
    session: Any
    embedding: Embedding | None = None


class Phases:
    """A decoder's graphs, the one for the smallest calls first."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self._phases = sorted(phases, key=lambda phase: phase.from_tokens)

    def __iter__(self) -> Iterator[Phase]:
        return iter(self._phases)

    def choose(self, tokens: int) -> Phase:
        """The graph for a call that computes so many tokens."""
        fitting = [phase for phase in self._phases if phase.from_tokens <= tokens]
        return fitting[-1] if fitting else self._phases[0]


def open_phases(locate: Callable[[str], Path], graph: DecoderGraph, *, threads: int | None = None) -> Phases:
    """A session for each of the decoder's graphs, whose files `locate` finds. Raises GraphError."""
    files = [(1, graph.file), *((phase.from_tokens, phase.file) for phase in graph.phases)]
    tables = {graph.file: graph.embedding, **{phase.file: phase.embedding for phase in graph.phases}}
    rows = {file: Embedding(locate(file), table) for file, table in tables.items() if table}
    # A decode step is a few hundred short operators: sleeping between them costs a fifth of the time.
    opened = {file: open_session(locate(file), threads=threads, spinning=True) for _, file in files}
    return Phases([Phase(start, file, opened[file], rows.get(file)) for start, file in files])


def single(session: Any, graph: DecoderGraph) -> Phases:
    """One session for every call, of a graph that takes tokens."""
    return Phases([Phase(1, graph.file, session)])
