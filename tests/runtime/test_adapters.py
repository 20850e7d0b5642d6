"""Several adapters as one pair of factors: against the sum that defines them."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.adapters import GATES, Adapter, adapter_inputs, read_adapter
from runtime.errors import AdapterError
from runtime.manifest import AdapterGraph, AdapterSite

INPUTS, OUTPUTS = 5, 4
GRAPH = AdapterGraph(
    sites=tuple(
        AdapterSite(name=name, inputs=INPUTS, outputs=OUTPUTS, reads="x", writes="y", width=OUTPUTS)
        for name in ("first", "second")
    )
)


def adapter(rank: int, seed: int, *layers: str) -> Adapter:
    rng = np.random.default_rng(seed)
    factors = {}
    for layer in layers:
        factors[f"{layer}.lora_A"] = rng.standard_normal((INPUTS, rank)).astype(np.float32)
        factors[f"{layer}.lora_B"] = rng.standard_normal((rank, OUTPUTS)).astype(np.float32)
    return Adapter(rank, factors, str(seed))


KNOWN = [None, adapter(2, 0, "first", "second"), adapter(3, 1, "first"), adapter(1, 2, "second")]


@given(st.lists(st.sampled_from(KNOWN), min_size=1, max_size=6).filter(any))
def test_each_row_gets_its_own_adapter_and_only_that(rows: list[Adapter | None]) -> None:
    inputs = adapter_inputs(rows, GRAPH)
    x = np.random.default_rng(9).standard_normal((len(rows), 3, INPUTS)).astype(np.float32)
    for layer in ("first", "second"):
        a, b = inputs[f"{layer}.lora_A"], inputs[f"{layer}.lora_B"]
        added = ((x @ a) * inputs[GATES]) @ b
        for row, values, result in zip(rows, x, added, strict=True):
            if row is None or f"{layer}.lora_A" not in row.factors:
                assert not result.any()
            else:
                wanted = values @ row.factors[f"{layer}.lora_A"] @ row.factors[f"{layer}.lora_B"]
                np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


def test_an_adapter_that_is_asked_for_twice_is_stacked_once() -> None:
    inputs = adapter_inputs([KNOWN[1], None, KNOWN[1]], GRAPH)
    assert inputs[GATES].shape == (3, 1, 2)
    assert inputs[GATES].sum() == 4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_adapter_that_would_break_its_neighbours_is_not_loaded(tmp_path: Path, value: float) -> None:
    """Zero gates keep finite factors out of other rows: 0 times NaN is NaN."""
    factors = {"first.lora_A": np.ones((INPUTS, 2), np.float32), "first.lora_B": np.ones((2, 4), np.float32)}
    factors["first.lora_A"][1, 1] = value
    written = ort.AdapterFormat()
    written.set_parameters({name: ort.OrtValue.ortvalue_from_numpy(each) for name, each in factors.items()})
    written.export_adapter(str(tmp_path / "broken.onnx_adapter"))
    with pytest.raises(AdapterError, match=r"'first\.lora_A' holds NaN or infinite values"):
        read_adapter(tmp_path / "broken.onnx_adapter", GRAPH)
