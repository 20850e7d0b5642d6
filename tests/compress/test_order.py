"""Orders that cannot work are refused when the recipe is read, with the reason and the line."""

from itertools import permutations

import pytest

from compress.errors import RecipeError
from compress.recipe import parse_recipe

STEPS = {
    "distill": "{method: distill, student: {layers: first-last}}",
    "shrink": "{method: shrink, remove: {ffn: 0.3}}",
    "shrink-train": "{method: shrink, remove: {ffn: 0.3}, finetune: {}}",
    "factorize": "{method: factorize, ratio: 0.5}",
    "lora": "{method: lora}",
    "adapter": "{method: lora, merge: false}",
    "prune": "{method: prune, criterion: magnitude}",
    "qat": "{method: qat}",
    "quantize": "{method: quantize, scheme: int4}",
    "half": "{method: quantize, scheme: fp16}",
    "phases": "{method: phases, graphs: [{scheme: int4}, {scheme: int8-dynamic}]}",
}
ON_GRAPH = ["quantize", "half", "phases"]
ON_TORCH = [name for name in STEPS if name not in ON_GRAPH]
REFUSED = {
    **{(early, late): "before it works on the exported graph" for early in ON_GRAPH for late in ON_TORCH},
    **{(early, late): "has rounded the weights" for early in ON_GRAPH for late in ON_GRAPH},
    **{("qat", late): "'qat' left integers for weights" for late in ("quantize", "phases")},
    **{("qat", late): "'qat' leaves integers for weights" for late in ON_TORCH},
    **{("adapter", late): "put 'lora' last, or use 'merge: true'" for late in ON_TORCH},
    **{
        ("prune", late): "zeros of 'prune' would be lost; put 'prune' after it"
        for late in ("distill", "shrink-train", "factorize", "lora", "adapter")
    },
    **{("factorize", late): "put 'shrink' first" for late in ("shrink", "shrink-train")},
}


def recipe(*names: str) -> str:
    return "model: zoo:gpt-mini\nsteps:\n" + "".join(f"  - {STEPS[name]}\n" for name in names)


@pytest.mark.parametrize(("early", "late"), list(permutations(STEPS, 2)), ids=" then ".join)
def test_every_pair_of_steps(early: str, late: str) -> None:
    if reason := REFUSED.get((early, late)):
        with pytest.raises(RecipeError, match=rf"<recipe>:4: .*{reason}"):
            parse_recipe(recipe(early, late))
    else:
        assert len(parse_recipe(recipe(early, late)).steps) == 2


def test_the_sensible_order_stands_and_a_step_between_hides_nothing() -> None:
    assert len(parse_recipe(recipe("distill", "shrink", "factorize", "lora", "prune", "quantize")).steps) == 6
    with pytest.raises(RecipeError, match=r"<recipe>:5: 'lora' adds a dense product"):
        parse_recipe(recipe("prune", "shrink", "lora"))


@pytest.mark.parametrize(
    "quantize",
    ["{method: quantize, scheme: int4}", "{method: quantize, scheme: nf4, block_size: 128}"],
)
def test_an_adapter_beside_four_bits_keeps_the_weights_it_was_trained_beside(quantize: str) -> None:
    lora = "{method: lora, merge: false, quantized_base: {scheme: nf4}}"
    text = f"model: zoo:gpt-mini\nsteps:\n  - {lora}\n  - "
    with pytest.raises(RecipeError, match=r"<recipe>:4: .*trained beside nf4 weights in blocks of 64"):
        parse_recipe(text + quantize)
    assert len(parse_recipe(text + "{method: quantize, scheme: nf4}").steps) == 2
    merged = text.replace("merge: false", "merge: true")
    assert len(parse_recipe(merged + quantize).steps) == 2
