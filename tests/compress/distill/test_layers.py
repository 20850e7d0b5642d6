import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5Model

from compress.distill.layers import captured, chosen_layers, stack_of, with_layers
from compress.errors import StepError
from models.sources.source import SourceModel
from models.sources.wrappers import EncoderModule

BERT = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
}


@pytest.fixture
def encoder() -> EncoderModule:
    torch.manual_seed(0)
    return EncoderModule(BertForSequenceClassification(BertConfig(**BERT)).eval(), "logits")


@pytest.mark.parametrize(
    ("layers", "count", "wanted"),
    [
        ("every-other", 4, (0, 2)),
        ("every-other", 5, (0, 2, 4)),
        ("first-last", 6, (0, 5)),
        ("first-last", 1, (0,)),
        ((1, 3), 4, (1, 3)),
    ],
)
def test_the_choice_of_layers(layers: object, count: int, wanted: tuple[int, ...]) -> None:
    assert chosen_layers(layers, count) == wanted


def test_a_layer_that_the_teacher_lacks_is_refused() -> None:
    with pytest.raises(StepError, match="student layer 4: the teacher's layers are 0 to 3"):
        chosen_layers((0, 4), 4)


def test_a_decoder_of_some_layers_is_the_teacher_with_the_others_left_out(decoder: SourceModel) -> None:
    assert decoder.module is not None
    student = with_layers(decoder.module, (1, 3), "it")
    assert student.config.num_hidden_layers == 2  # type: ignore[union-attr]
    numbers = [layer.self_attn.layer_idx for layer in stack_of(student, "it")]  # type: ignore[union-attr]
    assert numbers == [0, 1]
    tokens = torch.arange(10)[None]
    got = student(input_ids=tokens).logits
    full = stack_of(decoder.module, "it")
    dropped = [full[0], full[2]]
    handles = [layer.register_forward_hook(lambda _, inputs, output: inputs[0]) for layer in dropped]
    wanted = decoder.module(input_ids=tokens).logits
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(got, wanted)
    assert len(full) == decoder.module.config.num_hidden_layers == 4  # type: ignore[union-attr]


def test_the_students_cache_gives_what_the_whole_text_gives(decoder: SourceModel) -> None:
    assert decoder.module is not None
    student = with_layers(decoder.module, chosen_layers("first-last", 4), "it")
    tokens = torch.arange(12)[None]
    first = student(input_ids=tokens[:, :8], use_cache=True)
    rest = student(input_ids=tokens[:, 8:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(rest.logits, student(input_ids=tokens).logits[:, 8:], rtol=1e-4, atol=1e-5)


def test_an_encoder_inside_a_wrapper_is_found(encoder: EncoderModule) -> None:
    student = with_layers(encoder, chosen_layers("every-other", len(stack_of(encoder, "it"))), "it")
    inputs = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64)
    assert len(stack_of(student, "it")) == 2
    assert student(*inputs).shape == encoder(*inputs).shape
    with captured(list(stack_of(encoder, "it"))) as states:
        encoder(*inputs)
    assert [tuple(state.shape) for state in states] == [(2, 5, 16)] * 3


def test_settings_with_an_entry_a_layer_follow(decoder: SourceModel) -> None:
    assert decoder.module is not None
    kinds = ["full_attention", "full_attention", "sliding_attention", "full_attention"]
    decoder.module.config.layer_types = kinds  # type: ignore[union-attr]
    student = with_layers(decoder.module, (0, 2), "it")
    assert student.config.layer_types == ["full_attention", "sliding_attention"]  # type: ignore[union-attr]


def test_what_is_not_one_stack_is_refused() -> None:
    two = T5Model(T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2))
    for module, count in ((two, 2), (torch.nn.Linear(2, 2), 0)):
        with pytest.raises(StepError, match=f"it: {count} stacks of transformer layers found"):
            stack_of(module, "it")
