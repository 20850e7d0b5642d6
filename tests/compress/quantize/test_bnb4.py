"""The graph computes with bitsandbytes' own bits."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compress.artifact import GraphArtifact
from compress.export.feedforward import export_feedforward
from compress.quantize.bnb4 import quantize_bnb4
from compress.quantize.step import run
from compress.step import Calibration, validate
from runtime.decoder import score
from runtime.manifest import Signature
from runtime.session import open_session

NOTHING = Signature(inputs=(), outputs=())


class Odd(torch.nn.Module):
    """A layer whose rows are no whole number of blocks, one with a bias, a product without, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList(
            [torch.nn.Linear(33, 7), torch.nn.Linear(7, 40), torch.nn.Linear(40, 65, bias=False)]
        )
        self.head = torch.nn.Linear(65, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


def quantize(graph: GraphArtifact, folder: Path, **settings: Any) -> Any:
    return run(validate({"method": "quantize", **settings}), graph, folder, Calibration(lambda _: iter(())))


def dequantized(layer: torch.nn.Linear, scheme: str, block_size: int) -> None:
    approximation = quantize_bnb4(layer.weight.detach().numpy(), scheme, block_size)[2]
    layer.weight.data = torch.from_numpy(approximation)


@pytest.mark.parametrize(("scheme", "block_size"), [("nf4", 64), ("fp4", 64), ("nf4", 128)])
def test_the_graph_equals_torch_with_the_dequantized_weights(
    tmp_path: Path, scheme: str, block_size: int
) -> None:
    module = Odd().eval()
    x = np.random.default_rng(0).standard_normal((9, 33)).astype(np.float32)
    source = tmp_path / "source"
    source.mkdir()
    graph = export_feedforward(module, {"x": x}, ["y"], source / "model.onnx", ragged=False)
    made, figures = quantize(
        GraphArtifact(source, graph, NOTHING), tmp_path, scheme=scheme, block_size=block_size, head_bits=32
    )
    for layer in module.layers:
        dequantized(layer, scheme, block_size)
    got = open_session(made.path, threads=1).run(None, {"x": x})[0]
    with torch.inference_mode():
        wanted = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    used = [node.op_type for node in onnx.load(made.path).graph.node]
    assert used.count("MatMulBnb4") == 3
    assert figures["weights"] == sum(layer.weight.numel() for layer in module.layers)


@pytest.mark.parametrize("scheme", ["nf4", "fp4"])
def test_a_decoder_equals_torch_with_the_dequantized_weights(
    decoder_graph: Any, llama: Any, tmp_path: Path, scheme: str
) -> None:
    path, graph = decoder_graph
    made, _ = quantize(GraphArtifact(path.parent, graph, NOTHING), tmp_path, scheme=scheme, head_bits=32)
    twin = type(llama)(llama.config).eval()
    twin.load_state_dict(llama.state_dict())
    for name, layer in twin.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            dequantized(layer, scheme, 64)
    tokens = np.random.default_rng(0).integers(0, 96, (2, 20))
    got = score(open_session(made.path, threads=1), graph, tokens)
    with torch.inference_mode():
        wanted = twin(input_ids=torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme", ["nf4", "fp4"])
def test_weights_that_were_trained_in_four_bits_come_back_bit_for_bit(scheme: str) -> None:
    """A model over bitsandbytes' weights exports them dequantized: quantizing again changes nothing."""
    weight = np.random.default_rng(0).standard_normal((48, 100)).astype(np.float32)
    packed, absmax, approximation = quantize_bnb4(weight, scheme, 64)
    again = quantize_bnb4(approximation, scheme, 64)
    if scheme == "nf4":  # FP4 has two zeros, and either may come back for the other
        np.testing.assert_array_equal(again[0], packed)
    np.testing.assert_array_equal(again[1], absmax)
    np.testing.assert_array_equal(again[2], approximation)


def test_nf4_are_the_quantiles_of_a_normal_distribution() -> None:
    """NF4 loses less than FP4 on what it was made for (Dettmers et al., arXiv:2305.14314, section 3)."""
    weight = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    nf4, fp4 = (np.square(quantize_bnb4(weight, scheme, 64)[2] - weight).mean() for scheme in ("nf4", "fp4"))
    assert nf4 < 0.7 * fp4
