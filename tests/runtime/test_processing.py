import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from runtime.errors import BatchTooLarge, InputError, PromptTooLong
from runtime.manifest import ImageProcessing, TextProcessing
from runtime.processing import (
    check_pixels,
    check_texts,
    classify,
    encode_texts,
    load_tokenizer,
    pad_tokens,
    pool,
    preprocess_images,
    tag_tokens,
)

RGB = ImageProcessing(
    mode="RGB",
    height=2,
    width=3,
    rescale=1 / 255,
    mean=(0.5, 0.0, 1.0),
    std=(0.5, 1.0, 2.0),
    resample="nearest",
)


def encoded(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def test_pixels_are_rescaled_and_normalised_channel_by_channel() -> None:
    tensor = preprocess_images([Image.new("RGB", (3, 2), (255, 0, 255))], RGB)
    assert tensor.shape == (1, 3, 2, 3)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0, :, 0, 0], [1.0, 0.0, 0.0])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK"])
def test_images_of_any_mode_and_size_are_taken(mode: str) -> None:
    assert preprocess_images([Image.new(mode, (7, 11))], RGB).shape == (1, 3, 2, 3)


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_encoded_bytes_are_the_image(form: str) -> None:
    image = Image.linear_gradient("L").resize((3, 2)).convert("RGB")
    np.testing.assert_array_equal(
        preprocess_images([encoded(image, form)], RGB), preprocess_images([image], RGB)
    )


def test_a_truncated_or_huge_image_is_refused() -> None:
    png = encoded(Image.effect_noise((64, 64), 50), "PNG")
    with pytest.raises(InputError, match="not a readable image"):
        preprocess_images([png[: len(png) // 2]], RGB)
    # A bitmap that declares 100,000 x 100,000 pixels in 54 bytes.
    bomb = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    bomb[18:26] = (100_000).to_bytes(4, "little") * 2
    with pytest.raises(InputError):
        preprocess_images([bytes(bomb)], RGB)
    assert len(preprocess_images([png], RGB, max_pixels=64 * 64)) == 1
    with pytest.raises(InputError, match="64x64 pixels; send at most 4,095"):
        preprocess_images([png], RGB, max_pixels=64 * 64 - 1)


def test_greys_of_16_bits_are_greys() -> None:
    """Pillow's conversion has everything above 255 white."""
    grey = Image.fromarray(np.full((2, 3), 0x4000, np.uint16))
    tensor = preprocess_images([encoded(grey, "PNG")], RGB)
    np.testing.assert_array_equal(tensor, preprocess_images([Image.new("L", (3, 2), 0x40)], RGB))


def test_a_text_that_unpacks_to_megabytes_makes_an_image_unreadable() -> None:
    texts, stream = PngInfo(), io.BytesIO()
    texts.add_text("comment", "a" * 2**21, zip=True)
    Image.new("L", (4, 4)).save(stream, "PNG", pnginfo=texts)
    with pytest.raises(InputError, match="not a readable image"):
        preprocess_images([stream.getvalue()], RGB)
    check_pixels([stream.getvalue()] * 17, 16)


@pytest.mark.parametrize("item", [None, 3, "a path", np.zeros((4, 4))])
def test_what_is_no_image_is_refused(item: Any) -> None:
    with pytest.raises(InputError, match="no image"):
        preprocess_images([item], RGB)


@pytest.fixture
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_file)


def test_many_images_are_as_few_large_ones() -> None:
    png = io.BytesIO()
    Image.new("RGB", (64, 64)).save(png, "PNG")
    check_pixels([png.getvalue()] * 16 + [b"no image", Image.new("L", (1, 1))], 64 * 64 + 1)
    with pytest.raises(BatchTooLarge, match="69,632 pixels together; send at most 65,536"):
        check_pixels([png.getvalue()] * 16 + [Image.new("L", (64, 64))], 64 * 64)


def test_texts_are_padded_on_the_right_and_truncated(tokenizer: Tokenizer) -> None:
    encoded = encode_texts(tokenizer, ["ab", "x", "y" * 50], TextProcessing(max_length=8, pad_id=7))
    assert encoded["input_ids"].shape == (3, 8)
    assert encoded["attention_mask"].sum(1).tolist() == [2, 1, 8]
    assert (encoded["input_ids"][1, 1:] == 7).all()


@pytest.mark.parametrize("keep", ["first", "last"])
def test_a_text_that_is_not_to_be_truncated_is_refused_by_all_its_tokens(
    tokenizer: Tokenizer, keep: Literal["first", "last"]
) -> None:
    framed = Tokenizer.from_str(tokenizer.to_str())
    framed.post_processor = TemplateProcessing(single="a $A b", special_tokens=[("a", 0), ("b", 1)])
    processing = TextProcessing(max_length=8, keep=keep)
    whole = encode_texts(framed, ["cd", "y" * 6], processing, truncate=False)
    assert whole["attention_mask"].sum(1).tolist() == [4, 8]
    with pytest.raises(PromptTooLong, match="text 1 has 52 tokens and the model reads 8"):
        encode_texts(framed, ["cd", "y" * 50], processing, truncate=False)


@pytest.mark.parametrize(("keep", "kept"), [("first", [1, 2]), ("last", [2, 3])])
def test_tokens_are_cut_where_they_may_be(keep: Literal["first", "last"], kept: list[int]) -> None:
    processing = TextProcessing(max_length=2, keep=keep)
    assert pad_tokens([[1, 2, 3]], processing, truncate=True)["input_ids"].tolist() == [kept]
    with pytest.raises(PromptTooLong, match="the text has 3 tokens and the model reads 2"):
        pad_tokens([[1, 2, 3]], processing)


@pytest.mark.parametrize(("texts", "message"), [([], "the batch is empty"), (["a", " "], "text 1 is empty")])
def test_empty_texts_are_refused(tokenizer: Tokenizer, texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_texts(tokenizer, texts, TextProcessing(max_length=8))


@pytest.mark.parametrize("item", [None, 3, b"bytes", [1, 2]])
def test_what_is_no_text_is_refused(tokenizer: Tokenizer, item: Any) -> None:
    with pytest.raises(InputError, match="text 1 is no text"):
        encode_texts(tokenizer, ["a", item], TextProcessing(max_length=8))


@pytest.mark.parametrize("token", [-1, 2**63, 1.5, "a", None, [1]])
def test_what_is_no_token_is_refused(token: Any) -> None:
    """A negative number counts from the table's end, and would be read as another token."""
    with pytest.raises(InputError, match="outside the vocabulary"):
        pad_tokens([[1, 2], [token]], TextProcessing(max_length=8))


@pytest.mark.parametrize("row", [[0, 1, 1], [0, 0, 0], [1, 0, 1], [2, 1, 0], [-1, 1, 1], [2**62, 1, 1]])
def test_a_mask_that_is_not_of_texts_padded_on_the_right_is_refused(row: list[int]) -> None:
    mask = np.array([[1, 1, 0], row])
    with pytest.raises(InputError, match="pad on the right"):
        check_texts({"input_ids": np.ones_like(mask), "attention_mask": mask}, 2, 3)


def test_texts_of_any_length_and_captions_are_taken() -> None:
    mask = np.array([[1, 0, 0], [1, 1, 1]])
    check_texts({"input_ids": np.zeros_like(mask), "attention_mask": mask}, 2, 3)
    check_texts({"attention_mask": mask[None]}, 2, 3)
    for tokens in (mask - 1, mask + 2):
        with pytest.raises(InputError, match="outside the vocabulary of 2"):
            check_texts({"input_ids": tokens}, 2, 3)
    with pytest.raises(PromptTooLong, match="send at most 2"):
        check_texts({"input_ids": mask}, 2, 2)


def test_mean_pooling_ignores_padding() -> None:
    hidden = np.array([[[1.0, 0.0], [3.0, 4.0], [100.0, 100.0]]], np.float32)
    mask = np.array([[1, 1, 0]])
    mean = pool(hidden, mask, TextProcessing(max_length=8, pooling="mean"))
    np.testing.assert_allclose(mean, [[2.0, 2.0]])
    unit = pool(hidden, mask, TextProcessing(max_length=8, pooling="mean", normalize=True))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(pool(hidden, mask, TextProcessing(max_length=8, pooling="cls")), [[1.0, 0.0]])


def test_large_logits_do_not_overflow() -> None:
    answer = classify(np.array([[1e4, -1e4]], np.float32), ("yes", "no"))[0]
    assert (answer["label"], answer["probability"]) == ("yes", 1.0)


def test_tokens_are_tagged_without_the_padding(tokenizer: Tokenizer) -> None:
    inputs = encode_texts(tokenizer, ["ab", "c"], TextProcessing(max_length=8))
    logits = np.zeros((2, 2, 2), np.float32)
    logits[0, 1, 1] = 5
    answers = tag_tokens(logits, inputs, tokenizer, ("O", "NAME"))
    assert [[token["label"] for token in answer["tokens"]] for answer in answers] == [["O", "NAME"], ["O"]]


def test_what_frames_a_text_gets_no_tag(tokenizer: Tokenizer) -> None:
    framed = Tokenizer.from_str(tokenizer.to_str())
    framed.add_special_tokens(["[CLS]", "[SEP]"])
    marks = [(mark, framed.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
    framed.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    inputs = encode_texts(framed, ["ab"], TextProcessing(max_length=8))
    (answer,) = tag_tokens(np.zeros((1, 4, 1), np.float32), inputs, framed, ("O",))
    assert inputs["input_ids"].shape == (1, 4)
    assert [token["token"] for token in answer["tokens"]] == ["a", "b"]
