"""Loaded models at work: what the settings make of them."""

import io
from pathlib import Path

import pytest
from PIL import Image

from runtime.bundle import Bundle
from runtime.errors import InputError
from runtime.kv_cache import bytes_per_token
from runtime.model import TextModel, load_model
from runtime.request import Request
from runtime.sampling import SamplingParams
from service.errors import ServiceError
from service.served import load, scheduling
from service.settings import Settings


@pytest.fixture(scope="module")
def model(bundles: Path) -> TextModel:
    loaded = load_model(Bundle.open(bundles / "chatter"))
    assert isinstance(loaded, TextModel)
    return loaded


def generate(model: TextModel, settings: Settings) -> tuple[list[int | None], int]:
    """Tokens after a prompt, and how many were proposed on the way."""
    scheduler = scheduling(model, settings)(model, 2)
    # It says the same token again and again, which prompt lookup foresees.
    (again,) = model.encode("a")
    params = SamplingParams(max_tokens=12, temperature=0, logit_bias={again: 100})
    scheduler.add(Request("", [again], params))
    tokens = []
    while scheduler.has_work:
        tokens += [event.token_id for event in scheduler.step()]
    return tokens, scheduler.statistics.draft_tokens


def test_speculation_is_a_setting_and_changes_no_answer(model: TextModel) -> None:
    plain, none = generate(model, Settings())
    looked_up, proposed = generate(model, Settings(speculate=("lookup",)))
    assert (looked_up, none) == (plain, 0)
    assert proposed > 0


def test_a_text_file_may_speculate(model: TextModel, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a a a a")
    plain, _ = generate(model, Settings())
    for words in (str(corpus),), ("lookup", str(corpus)):
        tokens, proposed = generate(model, Settings(speculate=words))
        assert tokens == plain
        assert proposed > 0


@pytest.mark.parametrize(
    ("content", "said"), [(b"\xff\xfe", "cannot be read as text"), (b"", "there is no text in it")]
)
def test_a_file_that_is_no_text_cannot_speculate(
    model: TextModel, tmp_path: Path, content: bytes, said: str
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(content)
    with pytest.raises(ServiceError, match=rf"corpus\.txt: {said}"):
        scheduling(model, Settings(speculate=(str(corpus),)))


def test_a_model_does_not_draft_for_itself(model: TextModel, bundles: Path) -> None:
    assert generate(model, Settings(speculate=(str(bundles / "chatter"),))) == generate(model, Settings())


def test_a_draft_must_generate_text(model: TextModel, bundles: Path) -> None:
    with pytest.raises(ServiceError, match="generates no text"):
        scheduling(model, Settings(speculate=(str(bundles / "digits"),)))


def test_memory_is_a_setting(model: TextModel) -> None:
    token = bytes_per_token(model.graph)
    scheduler = scheduling(model, Settings(kv_bytes=40 * token))(model, 8)
    assert scheduler.statistics.kv_tokens_capacity == 30


def test_the_size_of_images_is_a_setting(bundles: Path) -> None:
    settings = Settings.from_environment({"MODELPRESS_MAX_PIXELS": "63"})
    model = load(Bundle.open(bundles / "digits"), settings)
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "PNG")
    with pytest.raises(InputError, match="8x8 pixels; send at most 63"):
        model.encode([stream.getvalue()])
