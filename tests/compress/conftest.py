"""A four-layer Llama saved as transformers does, a text to learn from, and a network of one's own."""

import json
import shutil
import sys
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
def llama_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """A decoder with grouped-query attention, vocabulary 96, context 64."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=95,
        eos_token_id=95,
    )
    folder = tmp_path_factory.mktemp("models") / "four-layers"
    LlamaForCausalLM(config).eval().save_pretrained(folder)
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
