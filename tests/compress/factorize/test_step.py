"""The step on small real networks: what is replaced, what is refused, and that it exports and quantizes."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.errors import RecipeError, StepError
from compress.factorize.layers import LowRankLinear, grams, linear_layers
from compress.factorize.step import restore, run
from compress.pipeline import run as run_recipe
from compress.recipe import parse_recipe
from compress.step import validate
from models.sources import load_source
from models.sources.source import SourceModel

NETWORK = """
import torch

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Linear(8, 64)
        self.hidden = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(64, 48), torch.nn.ReLU())
        self.head = torch.nn.Linear(48, 3, bias=False)
        self.unused = torch.nn.Linear(40, 40)

    def forward(self, x):
        return self.head(self.hidden(self.embedding(x)))

def network():
    return Network()
"""
PARAMETERS = 9 * 64 + 65 * 48 + 48 * 3 + 41 * 40


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder with a user's own network and data, and an empty cache."""
    (tmp_path / "thick_network.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=(x[:, 0] > 0).astype(np.int64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("thick_network", None)
    yield tmp_path
    sys.modules.pop("thick_network", None)


def network() -> SourceModel:
    return load_source("py:thick_network:network", "data.npz")


def factorize(source: SourceModel, **settings: Any) -> tuple[SourceModel, dict[str, Any]]:
    config: Any = validate({"method": "factorize", **settings})
    return run(config, source, 0)


def outputs(source: SourceModel) -> torch.Tensor:
    assert source.module is not None
    assert source.dataset is not None
    with torch.no_grad():
        result: torch.Tensor = source.module(torch.from_numpy(source.dataset.validation.inputs["x"]))
    return result


@pytest.mark.parametrize("algorithm", ["svd", "asvd", "svd-llm"])
def test_a_layer_is_replaced_only_where_that_saves(algorithm: str) -> None:
    """80% of the head's energy needs all three of its ranks; on real inputs two do, which save."""
    made, figures = factorize(
        network(), algorithm=algorithm, energy=0.8, exclude=["unused"], calibration={"samples": 100}
    )
    assert figures["parameters_before"] == PARAMETERS
    assert made.module is not None
    assert figures["parameters_after"] == sum(each.numel() for each in made.module.parameters()) < PARAMETERS
    assert figures["left_whole"] == ([] if algorithm == "svd-llm" else ["head"])
    rank = figures["ranks"]["hidden.1"]
    assert 0 < figures["worst_relative_error"] <= np.sqrt(0.2)
    hidden = made.module.get_submodule("hidden.1")
    assert isinstance(hidden, LowRankLinear)
    assert hidden.down.weight.shape == (rank, 64)
    assert isinstance(made.module.get_submodule("unused"), torch.nn.Linear)


def test_a_ratio_is_kept_by_every_layer() -> None:
    _, figures = factorize(network(), ratio=0.5, targets=["hidden.*", "unused"])
    assert figures["ranks"] == {"hidden.1": 64 * 48 // 2 // (64 + 48), "unused": 10}


def test_most_of_the_energy_is_most_of_the_output() -> None:
    source = network()
    wanted = outputs(source)
    made, _ = factorize(source, energy=0.99, targets=["hidden.1"], algorithm="svd-llm")
    assert float((outputs(made) - wanted).norm() / wanted.norm()) < 0.2


def test_real_inputs_make_a_better_choice_than_the_weight_alone() -> None:
    wanted = outputs(network())
    errors = {}
    for algorithm in ("svd", "svd-llm"):
        made, _ = factorize(network(), algorithm=algorithm, rank=6, targets=["hidden.1"])
        errors[algorithm] = float((outputs(made) - wanted).norm())
    assert errors["svd-llm"] < 0.8 * errors["svd"]


def test_whoever_reads_the_weight_sees_the_product() -> None:
    source = network()
    assert source.module is not None
    before = source.module.get_submodule("unused").weight.clone()  # type: ignore[union-attr, operator]
    bias = source.module.get_submodule("unused").bias
    factorize(source, rank=19, targets=["unused"])
    layer = source.module.get_submodule("unused")
    assert isinstance(layer, LowRankLinear)
    tail = torch.linalg.svdvals(before)[19:].norm()
    torch.testing.assert_close((layer.weight - before).norm(), tail, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.bias, bias)


def test_restoring_gives_the_stored_structure() -> None:
    config: Any = validate({"method": "factorize", "ratio": 0.5, "exclude": ["unused"]})
    made, _ = run(config, network(), 0)
    assert made.module is not None
    state = made.module.state_dict()
    fresh = restore(config, network(), {name: tuple(value.shape) for name, value in state.items()})
    assert fresh.module is not None
    fresh.module.load_state_dict(state)
    torch.testing.assert_close(outputs(fresh), outputs(made))


def test_fine_tuning_wins_back_what_the_rank_cost() -> None:
    """The teacher is the network as it was: with soft targets alone, that is all there is to learn."""
    wanted = outputs(network())
    finetune = {"steps": 150, "batch_size": 64, "threads": 1, "distill": {"alpha": 0.0}}
    cut, _ = factorize(network(), rank=2, targets=["hidden.1"])
    tuned, figures = factorize(network(), rank=2, targets=["hidden.1"], finetune=finetune)
    before, after = ((outputs(each) - wanted).softmax(-1).std() for each in (cut, tuned))
    assert after < before
    assert figures["finetune"]["steps"] == 150


def test_it_composes_with_quantization() -> None:
    result = run_recipe(
        parse_recipe("""
model: py:thick_network:network
data: data.npz
steps:
  - {method: factorize, algorithm: svd-llm, ratio: 0.5, exclude: [unused], finetune: {steps: 5, threads: 1}}
  - {method: factorize, rank: 5, targets: [unused]}
  - {method: quantize, scheme: int8-dynamic}
gate: {max_drop: 1.0}
""")
    )
    assert result.bundle.manifest.variant == "factorize-factorize-int8-dynamic"
    assert result.evidence.size_bytes < result.evidence.baseline_size_bytes
    assert result.evidence.parity["relative_error"] < 1e-4
    assert result.bundle.manifest.lineage.steps[2].figures["ranks"] == {"unused": 5}


def test_a_decoder_keeps_its_tied_head_and_its_cache(
    llama: Any, tmp_path: Path, tokenizer_file: Path
) -> None:
    """Factorizing a head that is the embedding too would add parameters."""
    import shutil

    folder = tmp_path / "tiny"
    llama.save_pretrained(folder)
    shutil.copy(tokenizer_file, folder / "tokenizer.json")
    made, figures = factorize(load_source(f"hf:{folder}"), ratio=0.6)
    assert made.module is not None
    assert "lm_head" not in linear_layers(made.module)
    assert {name.rpartition(".")[2] for name in figures["ranks"]} >= {"q_proj", "o_proj", "down_proj"}
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        first = made.module(input_ids=tokens[:, :8], use_cache=True)
        rest = made.module(input_ids=tokens[:, 8:], past_key_values=first.past_key_values, use_cache=True)
        whole = made.module(input_ids=tokens)
    torch.testing.assert_close(rest.logits, whole.logits[:, 8:], rtol=1e-4, atol=1e-4)


def test_padding_is_no_input() -> None:
    """Rows that the mask leaves out do not change what a layer is seen to see."""

    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(x)
            return result

    from dataclasses import replace

    from models.datasets.dataset import Split

    x = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
    mask = np.array([[1, 1, 0]] * 6)
    source = network()
    assert source.dataset is not None
    dataset = replace(source.dataset, load=lambda split: Split({"x": x, "attention_mask": mask}, None))
    masked = replace(source, module=Masked(), input_names=("x", "attention_mask"), dataset=dataset)
    seen = x[:, :2].reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(grams(masked, ["layer"], 6, 0)["layer"], seen.T @ seen, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0.5, "targets": ["hiden.1"]}, "targets: 'hiden.1' matches no linear layer"),
        ({"ratio": 0.5, "targets": ["hiden.1"]}, "did you mean 'hidden.1'?"),
        ({"ratio": 0.5, "exclude": ["*.proj"]}, "exclude: '*.proj' matches no linear layer"),
        ({"ratio": 0.5, "exclude": ["*"]}, "every layer that 'targets' match is excluded"),
        ({"rank": 4}, "rank 4 is above the rank of 'head', which is 3"),
        ({"energy": 0.9999, "targets": ["head"]}, "no layer gets smaller at this rank"),
        ({"ratio": 0.5, "algorithm": "asvd"}, "no calibration input reaches 'unused'"),
        (
            {"ratio": 0.5, "algorithm": "svd-llm", "calibration": {"samples": 999}},
            "999 calibration samples asked, but data.npz has 240",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(settings: Any, message: str) -> None:
    with pytest.raises(StepError) as caught:
        factorize(network(), **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "give exactly one of 'energy', 'ratio' and 'rank'"),
        ("rank: 2, ratio: 0.5", "give exactly one of"),
        ("energy: 1.5", "'energy': Input should be less than 1"),
        ("ratio: 0", "'ratio': Input should be greater than 0"),
        ("rank: 0", "'rank': Input should be greater than or equal to 1"),
        ("rnk: 2", "unknown key 'rnk'; did you mean 'rank'?"),
    ],
)
def test_a_wrong_setting_is_refused_when_the_recipe_is_read(settings: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f"model: zoo:lenet5\nsteps:\n  - {{method: factorize, {settings}}}\n")
    assert message in str(caught.value)
