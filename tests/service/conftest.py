"""Tiny real bundles, made of ONNX by hand, and real servers over them, in an environment without torch."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import httpx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from runtime.bundle import Bundle, write_bundle
from runtime.manifest import (
    AdapterGraph,
    AdapterSite,
    DecoderGraph,
    FeedForwardGraph,
    GenerationProcessing,
    ImageProcessing,
    KVLayer,
    Lineage,
    Manifest,
    Signature,
    TensorSpec,
)

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("torch", "transformers", "onnx", "sklearn")
CONTEXT = 16_384
WIDTH, HEADS = 32, 2
EOS = 256
CHAT_TEMPLATE = """\
{% for message in messages %}
{% if message.content == 'refuse me' %}{{ raise_exception('not that') }}{% endif %}
<{{ message.role }}{{ ' ' ~ message.name if message.name }}>{{ message.content }}
{%- endfor %}
{% if add_generation_prompt %}<assistant>{% endif %}"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its address and a client for it, its process, and how long it took to be ready."""

    url: str
    http: httpx.Client
    process: subprocess.Popen[str]
    seconds: float

    def metrics(self) -> dict[str, float]:
        """Every sample of `/metrics`, by its name with labels."""
        lines = self.http.get("/metrics").text.splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}


@pytest.fixture(scope="session")
def server(bundles: Path, environment: dict[str, str]) -> Iterator[Server]:
    """One server over both bundles, for every test that does it no harm."""
    with serving(environment, str(bundles / "digits"), str(bundles / "chatter")) as running:
        yield running


@contextmanager
def serving(environment: dict[str, str], *arguments: str) -> Iterator[Server]:
    """A server on a free port, which is gone afterwards whatever happens."""
    command = [sys.executable, "-m", "service.cli", "serve", *arguments, "--port", "0", "--json"]
    started = time.perf_counter()
    # Its log goes to a file: nobody reads it meanwhile, and a pipe that is full would stop the server.
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=log)
        try:
            greeting = json.loads(process.stdout.readline() or "null")
            assert greeting, (log.seek(0), log.read())[1]
            seconds = time.perf_counter() - started
            with httpx.Client(base_url=greeting["url"], timeout=60) as client:
                yield Server(greeting["url"], client, process, seconds)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=120)
            finally:
                process.kill()


@pytest.fixture(scope="session")
def serve(environment: dict[str, str]) -> Callable[..., AbstractContextManager[Server]]:
    """Starts a server of one's own: `with serve(folder) as server`."""
    return partial(serving, environment)


@pytest.fixture(scope="session")
def serve_in() -> Callable[..., AbstractContextManager[Server]]:
    """As `serve`, in an environment of one's own: `with serve_in(environment, folder) as server`."""
    return serving


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A process environment with an empty model store, in which the compressing side cannot be imported."""
    blocker = tmp_path_factory.mktemp("blocker")
    for name in FORBIDDEN:
        (blocker / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name} here', name='{name}')\n")
    home = tmp_path_factory.mktemp("bentoml")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BENTOML", "MODELPRESS"))}
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(blocker), str(ROOT)]),
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
    }


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """Waits until something holds that must come true by itself."""

    def wait(holds: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it did not come true"
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two bundles, `digits` and `chatter`."""
    folder = tmp_path_factory.mktemp("bundles")
    write_digits(folder / "digits")
    write_chatter(folder / "chatter")
    return folder


def write_digits(target: Path, name: str = "digits") -> Bundle:
    """A classifier of 8x8 grey images: label `bright` where the mean is above a half, else `dark`."""
    weights = np.stack([np.full(64, -1.0), np.full(64, 1.0)], 1).astype(np.float32) / 64
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
        ],
        name,
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([0.5, -0.5], np.float32), "bias"),
        ],
    )
    manifest = Manifest(
        name=name,
        variant="tiny",
        task="image-classification",
        signature=Signature(
            inputs=(TensorSpec(name="pixels", dtype="float32", shape=("batch", 1, 8, 8)),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 2)),),
        ),
        processing=ImageProcessing(mode="L", height=8, width=8, rescale=1 / 255, mean=(0.0,), std=(1.0,)),
        labels=("dark", "bright"),
        graph=FeedForwardGraph(),
        lineage=Lineage(source="test"),
    )
    return _write(target, graph, manifest, "model.onnx")


def write_chatter(target: Path, name: str = "chatter") -> Bundle:
    """A one-layer decoder over bytes with random weights: it says printable ASCII and never stops."""
    rng = np.random.default_rng(0)

    def weight(label: str, *shape: int, scale: float = 1.0) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape, scale=scale).astype(np.float32), label)

    tokenizer = byte_tokenizer()
    bias = np.full(EOS + 1, -1e9, np.float32)
    bias[[tokenizer.token_to_id(chr(code)) for code in range(ord("!"), ord("~"))]] = 0
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["embedded"]),
        helper.make_node("Mod", ["position_ids", "period"], ["phase"]),
        helper.make_node("Gather", ["positions", "phase"], ["placed"]),
        helper.make_node("Add", ["embedded", "placed"], ["hidden"]),
        *(helper.make_node("MatMul", ["hidden", f"{part}_weight"], [part]) for part in "qkv"),
        helper.make_node(
            "GroupQueryAttention",
            ["q", "k", "v", "past_key_0", "past_value_0", "seqlens_k", "total_sequence_length"],
            ["attended", "present_key_0", "present_value_0"],
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=HEADS,
        ),
        helper.make_node("Add", ["hidden", "attended"], ["mixed"]),
        helper.make_node("Gather", ["mixed", "logit_positions"], ["kept"], axis=1),
        helper.make_node("MatMul", ["kept", "head"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["logits"]),
    ]
    cache = ["batch", HEADS, "capacity", WIDTH // HEADS]
    graph = helper.make_graph(
        nodes,
        name,
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
            helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["batch", "sequence"]),
            helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["batch"]),
            helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
            helper.make_tensor_value_info("logit_positions", TensorProto.INT64, ["kept"]),
            helper.make_tensor_value_info("past_key_0", TensorProto.FLOAT, cache),
            helper.make_tensor_value_info("past_value_0", TensorProto.FLOAT, cache),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "kept", EOS + 1]),
            helper.make_tensor_value_info("present_key_0", TensorProto.FLOAT, cache),
            helper.make_tensor_value_info("present_value_0", TensorProto.FLOAT, cache),
        ],
        [
            weight("embedding", EOS + 1, WIDTH),
            weight("positions", 64, WIDTH),
            *(weight(f"{part}_weight", WIDTH, WIDTH) for part in "qkv"),
            # Small enough that draws differ.
            weight("head", WIDTH, EOS + 1, scale=0.05),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.array(64), "period"),
        ],
    )
    manifest = Manifest(
        name=name,
        variant="tiny",
        task="text-generation",
        signature=Signature(
            inputs=(TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence")),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", "kept", EOS + 1)),),
        ),
        processing=GenerationProcessing(eos_ids=(EOS,), chat_template=CHAT_TEMPLATE),
        graph=DecoderGraph(
            layers=(KVLayer(heads=HEADS, head_dim=WIDTH // HEADS),),
            vocab_size=EOS + 1,
            context_length=CONTEXT,
        ),
        lineage=Lineage(source="test"),
    )
    tokenizer.save(str(target.parent / "tokenizer.json"))
    return _write(target, graph, manifest, "decoder.onnx", "tokenizer.json")


@pytest.fixture(scope="session")
def adaptable(bundles: Path, write_adapter, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`chatter` with a second graph, which takes adapters of its head, and one of them, `loud`."""
    from compress.artifact import GraphArtifact
    from compress.lora.attach import attach

    plain, folder = Bundle.open(bundles / "chatter"), tmp_path_factory.mktemp("adaptable")
    for name in plain.manifest.files:
        shutil.copyfile(plain.file(name), folder / name)
    write_adapter(folder / "loud.onnx_adapter", 1)
    columns = EOS + 1
    site = AdapterSite(
        name="head", inputs=WIDTH, outputs=columns, reads="kept", writes="scores", width=columns
    )
    adapters = AdapterGraph(sites=(site,), files={"loud": "loud.onnx_adapter"})
    graph = plain.manifest.graph.model_copy(update={"adapters": adapters})
    attach(GraphArtifact(folder, graph, plain.manifest.signature))
    manifest = plain.manifest.model_copy(update={"graph": graph, "files": {}})
    files = (*graph.shipped, "tokenizer.json")
    return write_bundle(folder / "bundle", manifest, {name: folder / name for name in files})


@pytest.fixture(scope="session")
def write_adapter() -> Callable[..., Path]:
    """Writes a random adapter of rank 2 for `adaptable`: `write_adapter(path, seed)`."""

    def write(path: Path, seed: int, width: int = WIDTH) -> Path:
        rng = np.random.default_rng(seed)
        shapes = {"head.lora_A": (width, 2), "head.lora_B": (2, EOS + 1)}
        factors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        adapter = ort.AdapterFormat()
        adapter.set_parameters({n: ort.OrtValue.ortvalue_from_numpy(v) for n, v in factors.items()})
        adapter.export_adapter(str(path))
        return path

    return write


def byte_tokenizer() -> Tokenizer:
    """Each byte is a token; the last id ends the text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)} | {"<end>": EOS}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _write(target: Path, graph: onnx.GraphProto, manifest: Manifest, file: str, *others: str) -> Bundle:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    path = target.parent / file
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return write_bundle(target, manifest, {name: target.parent / name for name in (file, *others)})
