"""Adapters on real layers: peft's own forward is the reference for what is merged and set apart."""

import warnings
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.errors import StepError
from compress.factorize.layers import linear_layers
from compress.lora.config import BaseConfig, LoraConfig
from compress.lora.layers import (
    AdaptedLinear,
    adapted_layers,
    add_adapters,
    base_weight,
    merge_adapters,
    quantize_base,
    separate_adapters,
    target_layers,
    without_adapters,
)

TOKENS = torch.arange(12).view(2, 6)


def adapted(module: nn.Module, **settings: Any) -> tuple[list[str], Tensor]:
    """`module` with trained-looking adapters in place; their layers, and what it then computes."""
    config = LoraConfig.model_validate({"rank": 3, "targets": ["*q_proj", "*down_proj"], **settings})
    layers = target_layers(module, config)
    if config.quantized_base:
        quantize_base(module, layers, config.quantized_base)
    add_adapters(module, list(layers), config, seed=0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return list(layers), logits(module)


def logits(module: nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = module.eval()(TOKENS).logits
    return result


@pytest.mark.parametrize(
    "settings", [{}, {"dora": True}, {"quantized_base": {}}, {"quantized_base": {"scheme": "fp4"}}]
)
def test_a_merged_model_computes_what_the_adapted_one_did(llama: Any, settings: dict[str, Any]) -> None:
    module = deepcopy(llama)
    names, expected = adapted(module, **settings)
    assert not torch.allclose(expected, logits(llama), atol=0.1)
    merge_adapters(module, names)
    assert all(type(module.get_submodule(name)) is nn.Linear for name in names)
    torch.testing.assert_close(logits(module), expected, atol=1e-3, rtol=1e-4)


def test_a_separate_adapter_computes_the_same_and_leaves_with_nothing_behind(llama: Any) -> None:
    module = deepcopy(llama)
    names, expected = adapted(module)
    separate_adapters(module, names, "one")
    assert list(adapted_layers(module)) == names
    torch.testing.assert_close(logits(module), expected, atol=1e-4, rtol=1e-4)
    with without_adapters(module):
        assert not adapted_layers(module)
        assert torch.equal(logits(module), logits(llama))
    assert list(adapted_layers(module)) == names


def test_the_bits_of_a_quantized_base_survive_being_written_out_and_quantized_again(llama: Any) -> None:
    """So the base that a separate adapter was trained over is the one that `quantize: nf4` serves."""
    module = deepcopy(llama)
    names, _ = adapted(module, quantized_base={})
    before = {name: base_weight(module.get_submodule(name).get_base_layer()) for name in names}
    separate_adapters(module, names, "one")
    layers = {name: layer.base for name, layer in adapted_layers(module).items()}
    twice = nn.ModuleDict({str(index): layer for index, layer in enumerate(layers.values())})
    quantize_base(twice, {str(index): layer for index, layer in enumerate(layers.values())}, BaseConfig())
    for index, name in enumerate(layers):
        assert torch.equal(base_weight(twice[str(index)]), before[name])


def test_only_the_adapters_learn(llama: Any) -> None:
    module = deepcopy(llama)
    names, _ = adapted(module)
    learning = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert len(learning) == 2 * len(names)
    assert all("lora_" in name for name in learning)


def test_tied_heads_are_never_adapted_and_impossible_ranks_refused(llama: Any) -> None:
    everything = target_layers(llama, LoraConfig())
    assert len(everything) == 14
    assert "lm_head" not in everything
    with pytest.raises(StepError, match=r"rank 17 is above the full rank of .*k_proj \(16\)"):
        target_layers(llama, LoraConfig(rank=17))
    with pytest.raises(StepError, match=r"lora: targets: '\*qkv' matches no linear layer"):
        target_layers(llama, LoraConfig(targets=("*qkv",)))
    with pytest.raises(StepError, match="has no linear layer of its own"):
        target_layers(nn.Conv2d(1, 1, 1), LoraConfig())


def test_a_layer_named_like_the_end_of_another_is_not_adapted_with_it() -> None:
    module = nn.ModuleDict({"0": nn.Linear(4, 4), "inner": nn.Sequential(nn.Linear(4, 4))})
    add_adapters(module, ["0"], LoraConfig(rank=1), seed=0)
    assert type(module.get_submodule("inner.0")) is nn.Linear


def test_an_adapted_layer_takes_any_leading_axes() -> None:
    layer = AdaptedLinear(nn.Linear(4, 6), 2, "one")
    assert layer(torch.zeros(2, 3, 4)).shape == (2, 3, 6)


def test_a_weight_that_is_computed_is_none_to_adapt() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 4))
    assert list(target_layers(module, LoraConfig(rank=2))) == ["1"]
    assert list(linear_layers(module)) == ["1"]
