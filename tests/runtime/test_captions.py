from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from runtime.captions import Captioned, check_captions, encode_captioned, rank_captions
from runtime.errors import InputError
from runtime.manifest import CaptionedProcessing, ImageProcessing, TextProcessing

PROCESSING = CaptionedProcessing(
    image=ImageProcessing(mode="L", height=2, width=2, rescale=1 / 255, mean=(0.0,), std=(1.0,)),
    text=TextProcessing(max_length=5),
)
DARK, BRIGHT = Image.new("L", (2, 2), 0), Image.new("L", (2, 2), 255)
DEFAULT = ("dark", "bright")


@pytest.fixture
def tokenizer() -> Tokenizer:
    words = {"[PAD]": 0, "[UNK]": 1, "[SEP]": 2, "dark": 3, "bright": 4, "very": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A [SEP]", special_tokens=[("[SEP]", 2)])
    return tokenizer


def test_images_alone_go_beside_the_captions_of_the_model(tokenizer: Tokenizer) -> None:
    inputs = encode_captioned([DARK, BRIGHT], PROCESSING, tokenizer, DEFAULT)
    assert inputs["pixel_values"][:, 0, 0, 0].tolist() == [0, 1]
    assert inputs["input_ids"].tolist() == [[[3, 2, 0, 0, 0], [4, 2, 0, 0, 0]]] * 2
    assert inputs["attention_mask"].tolist() == [[[1, 1, 0, 0, 0]] * 2] * 2
    assert {tensor.dtype for name, tensor in inputs.items() if name != "pixel_values"} == {np.dtype("int64")}


def test_fewer_captions_than_others_repeat_the_first(tokenizer: Tokenizer) -> None:
    items = [Captioned(DARK, ("very dark",)), Captioned(BRIGHT, ("bright", "very very very very bright"))]
    ids = encode_captioned(items, PROCESSING, tokenizer, DEFAULT)["input_ids"]
    assert ids.tolist() == [[[5, 3, 2, 0, 0]] * 2, [[4, 2, 0, 0, 0], [5, 5, 5, 5, 2]]]


def test_padding_takes_no_share_of_the_probability() -> None:
    answer = rank_captions(np.array([1.0, 2.0, 9.0]), ("dark", "bright"))
    assert answer["label"] == "bright"
    assert sum(answer["scores"].values()) == pytest.approx(1)
    assert list(answer["scores"]) == ["dark", "bright"]


@pytest.mark.parametrize("caption", ["夜", "Ω ω"])
def test_a_caption_in_a_script_that_the_model_never_read_is_refused(
    tokenizer: Tokenizer, caption: str
) -> None:
    with pytest.raises(InputError, match=f"knows no word of '{caption}'"):
        encode_captioned([Captioned(DARK, ("dark", caption))], PROCESSING, tokenizer, DEFAULT)


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        ([], "no captions"),
        (["dark", "  "], "caption 1 is empty"),
        (["dark", "bright", "dark"], "caption 2 is caption 0 again"),
        (["x" * number for number in range(1, 300)], "299 captions for one image"),
    ],
)
def test_captions_that_cannot_be_chosen_among_are_refused(captions: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_captions(captions)


def test_one_sentence_is_one_caption() -> None:
    assert check_captions("very dark") == ("very dark",)


def test_bytes_that_are_no_image_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="not a readable image"):
        encode_captioned([b"no"], PROCESSING, tokenizer, DEFAULT)
