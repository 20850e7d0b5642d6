"""LoRA adapters over one base: loaded while serving, chosen per request, several in one batch.

Each adapted layer computes x W + ((x A) * gates) B, where A and B hold the factors of all adapters of the
batch side by side along the rank, and a row's gates, 0 or 1, pick its own. A row without an adapter has only
zeros, so it computes the base exactly. Factors come and go as inputs of the graph, so loading one is
reading its file.

Why not onnxruntime's own adapter set: it is one a run, so a mixed batch would be one run an adapter, each
reading all weights again, which is most of what a decoding step costs. Why not factors gathered by row:
that copies A and B for each row, where gates are one small product. Why a graph of its own: with all layers
adapted, the four more nodes a layer slow a small decoder by 6 to 24% even when there is nothing to add
(`benchmarks/adapters.py`), so batches without adapters keep the plain graph. What is traded: while adapters
are used, a second session holds the weights, and a batch of many adapters pays for the sum of their ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from runtime.bundle import file_record
from runtime.errors import AdapterError, InputError
from runtime.manifest import AdapterGraph, AdapterSite
from runtime.processing import Array
from runtime.suggest import nearest

GATES = "adapter_gates"


def factor_names(site: AdapterSite) -> tuple[str, str]:
    """The names of a layer's A and B: inputs of the graph, and parameters in an adapter's file."""
    return f"{site.name}.lora_A", f"{site.name}.lora_B"


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """One adapter's factors by input name: float32 A [inputs, rank] and B [rank, outputs], scaling included.

    `identity` is of the content, for caches of what was computed with it.
    """

    rank: int
    factors: Mapping[str, Array]
    identity: str


def read_adapter(path: Path, graph: AdapterGraph) -> Adapter:
    """Read an adapter in onnxruntime's format for the decoder of `graph`.

    Raises AdapterError for a file that is none, and for one of another model.
    """
    if not path.is_file():
        raise AdapterError(f"{path}: no such file; name an adapter that `lora` with 'merge: false' wrote")
    try:
        stored = ort.AdapterFormat.read_adapter(str(path))
        # Copies: the arrays are views of a mapping of the file, which goes with `stored`.
        factors = {name: np.array(each.numpy(), np.float32) for name, each in stored.get_parameters().items()}
    except Exception as error:  # onnxruntime raises its own classes, and RuntimeError
        reason = str(error).splitlines()[0]
        raise AdapterError(f"{path}: not an onnxruntime adapter ({reason}); export it again") from None
    rank = _check(factors, graph, path)
    return Adapter(rank, factors, file_record(path).sha256)


class Adapters:
    """The adapters that requests may name. Safe to change while other threads look up.

    A sequence holds on to its adapter, so unloading one disturbs nobody who uses it already.
    """

    def __init__(self, graph: AdapterGraph | None = None) -> None:
        self._graph = graph
        self._loaded: dict[str, Adapter] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What is loaded, in alphabetical order."""
        return tuple(sorted(self._loaded))

    def load(self, name: str, path: Path) -> None:
        """Read the adapter at `path` and know it as `name`, in the place of one of that name.

        Raises AdapterError for a file that does not fit, and for a model that takes no adapters.
        """
        if self._graph is None:
            raise AdapterError(
                "this model takes no adapters; make its bundle with a `lora` step of 'merge: false'"
            )
        self._loaded[name] = read_adapter(path, self._graph)

    def unload(self, name: str) -> None:
        """Forget an adapter. Raises AdapterError for one that is not loaded."""
        if self._loaded.pop(name, None) is None:
            raise AdapterError(f"no adapter '{name}' is loaded; {nearest(name, self.names)}")

    def find(self, name: str | None) -> Adapter | None:
        """The adapter called `name`; None for None. Raises InputError for one that is not loaded."""
        if name is None:
            return None
        if name not in self._loaded:
            raise InputError(f"no adapter '{name}' is loaded; {nearest(name, self.names)}")
        return self._loaded[name]


def adapter_inputs(rows: Sequence[Adapter | None], graph: AdapterGraph) -> dict[str, Array]:
    """The inputs that the graph which takes adapters has beside the decoder's, for a batch of `rows`."""
    present = list(dict.fromkeys(row for row in rows if row is not None))
    return {**stack(present, graph), GATES: gates(rows, present)}


def stack(adapters: Sequence[Adapter], graph: AdapterGraph) -> dict[str, Array]:
    """The factors of `adapters` side by side, as the graph's inputs; zeros where one leaves a layer alone."""
    inputs = {}
    for site in graph.sites:
        a, b = factor_names(site)
        inputs[a] = np.concatenate(
            [_factor(each, a, (site.inputs, each.rank)) for each in adapters], axis=1, dtype=np.float32
        )
        inputs[b] = np.concatenate(
            [_factor(each, b, (each.rank, site.outputs)) for each in adapters], axis=0, dtype=np.float32
        )
    return {name: np.ascontiguousarray(value) for name, value in inputs.items()}


def gates(rows: Sequence[Adapter | None], adapters: Sequence[Adapter]) -> Array:
    """float32 [rows, 1, sum of ranks]: 1 over the columns of a row's adapter in `stack(adapters)`."""
    owner = np.repeat(np.arange(len(adapters)), [each.rank for each in adapters])
    chosen = np.array([-1 if row is None else adapters.index(row) for row in rows])
    return np.asarray(owner == chosen[:, None], np.float32)[:, None, :]


def _factor(adapter: Adapter, name: str, shape: tuple[int, int]) -> Array:
    found = adapter.factors.get(name)
    return np.zeros(shape, np.float32) if found is None else found


def _check(factors: Mapping[str, Array], graph: AdapterGraph, path: Path) -> int:
    """The adapter's one rank. Raises AdapterError where its layers are not the graph's."""
    known = {name: site for site in graph.sites for name in factor_names(site)}
    strange = sorted(set(factors) - set(known))
    if strange or not factors:
        what = f"'{strange[0]}' is no layer that this model adapts" if strange else "it holds no factors"
        raise AdapterError(f"{path}: {what}; load it over the base that it was trained on")
    broken = next((name for name, value in factors.items() if not np.isfinite(value).all()), None)
    if broken:
        # Its zero gates would not keep it out of the other rows of a batch: 0 times NaN is NaN.
        raise AdapterError(f"{path}: '{broken}' holds NaN or infinite values; train it again")
    ranks = {value.shape[name.endswith("lora_A")] for name, value in factors.items() if value.ndim == 2}
    rank = min(ranks, default=0)
    for name, value in factors.items():
        site = known[name]
        wanted = (site.inputs, rank) if name.endswith("lora_A") else (rank, site.outputs)
        if value.shape != wanted:
            raise AdapterError(
                f"{path}: '{name}' is {list(value.shape)} where this model takes {list(wanted)}; "
                "load it over the base that it was trained on"
            )
    return rank
