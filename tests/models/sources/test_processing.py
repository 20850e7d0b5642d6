"""A saved model's preprocessing files, read into the manifest's terms."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from models.sources.processing import chat_template
from runtime.chat import ChatTemplate

TALK = [{"role": "user", "content": "good"}, {"role": "assistant", "content": "film"}]
TEMPLATE = """\
{{ bos_token }}
{% for message in messages %}
  {{ message.role }}: {{ message['content'] | trim }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}assistant: {% endif %}"""
TOKENS: dict[str, Any] = {"bos_token": '<"s">', "eos_token": {"content": "</s>", "__type": "AddedToken"}}


@pytest.fixture
def folder(tmp_path: Path, make_tokenizer: Callable[[Iterable[str]], Path]) -> Path:
    make_tokenizer(["good film"]).rename(tmp_path / "tokenizer.json")
    return tmp_path


def configure(folder: Path, **more: Any) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **TOKENS, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_template_in_the_tokenizers_configuration_reads_as_transformers_reads_it(folder: Path) -> None:
    configure(folder, chat_template=TEMPLATE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert ChatTemplate(chat_template(folder)).render(TALK) == expected


def test_the_default_of_several_templates_is_taken(folder: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    configure(folder, chat_template=named)
    assert chat_template(folder) == "yes"


def test_a_template_in_a_file_of_its_own_comes_first(folder: Path) -> None:
    configure(folder, chat_template="no")
    (folder / "chat_template.jinja").write_text("yes")
    assert chat_template(folder) == "yes"


def test_a_model_may_have_none(folder: Path) -> None:
    assert chat_template(folder) is None
    configure(folder)
    assert chat_template(folder) is None
