"""What every test may use: caches of its own, the shared data where it is, and one tiny decoder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# How long an example takes says something about the machine's other work, and nothing about the code.
settings.register_profile("modelpress", deadline=None)
settings.load_profile("modelpress")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's caches or model store."""
    home = tmp_path_factory.mktemp("home")
    before = dict(os.environ)
    os.environ["MODELPRESS_HOME"] = str(home / "modelpress")
    os.environ["BENTOML_HOME"] = str(home / "bentoml")
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    if SHARED_DATA.is_dir():
        os.environ.setdefault("MODELPRESS_DATA", str(SHARED_DATA))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., Any]:
    """Makes Llamas of random weights: vocabulary 96, context 64, grouped queries; keywords change that."""

    def make(**changes: Any) -> Any:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        settings = {
            "vocab_size": 96,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "tie_word_embeddings": True,
            "initializer_range": 0.2,
        }
        return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()

    return make


@pytest.fixture(scope="session")
def llama(make_llama: Callable[..., Any]) -> Any:
    """One of two layers."""
    return make_llama()


@pytest.fixture(scope="session")
def decoder_graph(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The Llama exported once: (path of the graph, its DecoderGraph)."""
    from compress.export.decoder import export_decoder

    path = tmp_path_factory.mktemp("llama") / "decoder.onnx"
    return path, export_decoder(llama, path)


@pytest.fixture(scope="session")
def int8_cache_graph(decoder_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same Llama over an int8 cache: (path of the graph, its DecoderGraph)."""
    import numpy as np

    from compress.artifact import GraphArtifact
    from compress.step import Calibration, methods, validate
    from runtime.manifest import Signature

    path, graph = decoder_graph
    windows = np.random.default_rng(0).integers(0, 96, (64, 48))
    made, _ = methods()["kv-cache"].run(
        validate({"method": "kv-cache", "dtype": "int8"}),
        GraphArtifact(path.parent, graph, Signature(inputs=(), outputs=())),
        tmp_path_factory.mktemp("int8-cache"),
        Calibration(lambda samples: iter([{"input_ids": windows[:samples]}])),
    )
    return made.path, made.graph


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer of 96 tokens whose last one ends a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:95]
    trainer = trainers.BpeTrainer(vocab_size=95, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["plain text"], trainer)
    tokenizer.add_special_tokens(["<end>"])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def bart_folder(tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BART with random weights as transformers saves it: vocabulary 96, context 64, answers end in 95."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(1)
    config = BartConfig(
        vocab_size=96,
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_position_embeddings=64,
        init_std=0.6,
        bos_token_id=None,
        pad_token_id=94,
        eos_token_id=95,
        forced_eos_token_id=None,
        decoder_start_token_id=95,
        tie_word_embeddings=False,
    )
    folder = tmp_path_factory.mktemp("bart")
    BartForConditionalGeneration(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def text_bundle(decoder_graph: Any, tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The Llama as a bundle on disk."""
    from runtime.bundle import write_bundle
    from runtime.manifest import GenerationProcessing, Lineage, Manifest, Signature, TensorSpec

    path, graph = decoder_graph
    manifest = Manifest(
        name="tiny-llama",
        variant="fp32",
        task="text-generation",
        signature=Signature(
            inputs=(TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence")),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", "sequence", 96)),),
        ),
        processing=GenerationProcessing(),
        graph=graph,
        lineage=Lineage(source="test:llama"),
    )
    files = {"decoder.onnx": path, "tokenizer.json": tokenizer_file}
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny-llama", manifest, files)
