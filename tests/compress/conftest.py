"""A four-layer Llama saved as transformers does, a text to learn from, and a network of one's own."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.sources import load_source
from models.sources.source import SourceModel

NETWORKS = """
import torch

def build(width, classes=3, inputs=8):
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, width), torch.nn.ReLU(), torch.nn.Linear(width, classes)
    )

def teacher():
    return build(64)

def student():
    return build(8)

def of_other_classes():
    return build(8, classes=5)

def of_other_inputs():
    return build(8, inputs=9)
"""
TEXT = "the cat sat on the mat; the dog sat on the log; "


@pytest.fixture(scope="session")
def llama_folder(
    make_llama: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path
) -> Path:
    """A decoder of four layers, whose head is not its embedding."""
    folder = tmp_path_factory.mktemp("models") / "four-layers"
    ends = {"bos_token_id": 95, "eos_token_id": 95}
    make_llama(num_hidden_layers=4, tie_word_embeddings=False, **ends).save_pretrained(folder)
    shutil.copy(tokenizer_file, folder / "tokenizer.json")
    lines = [json.dumps({"text": TEXT * (3 + index % 5)}) for index in range(40)]
    (folder.parent / "texts.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def decoder(llama_folder: Path) -> SourceModel:
    return load_source(f"hf:{llama_folder}", str(llama_folder.parent / "texts.jsonl"))


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The working folder, with networks and data of one's own and an empty cache."""
    (tmp_path / "own_teacher.py").write_text(NETWORKS)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=x[:, :3].argmax(1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("own_teacher", None)
    yield tmp_path
    sys.modules.pop("own_teacher", None)


@pytest.fixture
def own(own_folder: Path) -> SourceModel:
    return load_source("py:own_teacher:teacher", "data.npz")
