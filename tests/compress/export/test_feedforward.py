"""What is said of a network of one's own that cannot be exported: one line, with the reason."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.errors import ExportError
from compress.export.feedforward import export_feedforward
from compress.export.parity import check_feedforward

INPUTS = {"x": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.zeros(3, 3)


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": x}


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Fails(), r"Fails does not run on its data \('x' float32 \[5, 4\]\): mat1 and mat2 shapes"),
        (Named(), "Named returns a dict; let its forward return a tensor"),
        (Branches(), r"Branches does not export to ONNX \(Could not guard .*\); remove control flow"),
    ],
)
def test_the_reason_is_one_line_and_the_modules_own(
    module: nn.Module, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export_feedforward(module, INPUTS, ["y"], tmp_path / "model.onnx", ragged=False)
    assert str(caught.value).isprintable()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("rows", [[0], [0, 1, 2, 3, 4]])
def test_outputs_that_are_no_numbers_are_no_parity(rows: list[int], tmp_path: Path) -> None:
    """Also where only the whole batch has some, and its first row alone has none."""
    module = nn.Linear(4, 2)
    export_feedforward(module, INPUTS, ["y"], tmp_path / "model.onnx", ragged=False)
    broken = {"x": INPUTS["x"].copy()}
    broken["x"][rows[-1]] = np.nan
    with pytest.raises(ExportError, match="the outputs for real inputs are not finite"):
        check_feedforward(module, tmp_path / "model.onnx", broken, ["y"])


class Pair(nn.Module):
    """The same numbers twice."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x + 2


def test_more_outputs_than_have_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Pair returns 2 tensors where one is wanted for each of output"):
        export_feedforward(
            Pair(), {"x": np.zeros((2, 3), np.float32)}, ("output",), tmp_path / "model.onnx", ragged=False
        )
