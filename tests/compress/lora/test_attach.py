"""Several adapters over one base: what is served is what each merged model says, alone and in company."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress.errors import ExportError
from compress.lora.attach import carry_adapters, find_sites
from compress.step import Calibration, validate
from runtime.errors import AdapterError, InputError
from runtime.prefix_cache import PrefixCache
from runtime.request import Request
from runtime.sampling import SamplingParams

STEPS = 6
GREEDY = SamplingParams(max_tokens=STEPS, temperature=0)


def generated(served: Any, slots: int, requests: list[tuple[list[int], str | None]]) -> list[list[int]]:
    scheduler = served.scheduler(slots, served.adapters())
    answers: dict[str, list[int]] = {str(number): [] for number in range(len(requests))}
    for number, (prompt, adapter) in enumerate(requests):
        scheduler.add(Request(str(number), prompt, GREEDY, adapter=adapter))
    while scheduler.has_work:
        for event in scheduler.step():
            if event.token_id is not None:
                answers[event.request_id].append(event.token_id)
    return list(answers.values())


def expected(module: Any, prompt: list[int]) -> list[int]:
    tokens = list(prompt)
    for _ in range(STEPS):
        with torch.no_grad():
            tokens.append(int(module(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


prompts = st.lists(st.integers(0, 95), min_size=1, max_size=12)
asked = st.lists(st.tuples(prompts, st.sampled_from([None, "style", "task"])), min_size=1, max_size=6)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=asked, slots=st.integers(1, 4))
def test_tokens_with_an_adapter_are_those_of_the_merged_model_alone_and_in_a_mixed_batch(
    served: Any, requests: list[tuple[list[int], str | None]], slots: int
) -> None:
    wanted = [expected(served.merged[adapter], prompt) for prompt, adapter in requests]
    assert generated(served, slots, requests) == wanted


def test_the_adapters_say_something_else_than_the_base(served: Any) -> None:
    answers = generated(served, 3, [([1, 2, 3], name) for name in (None, "style", "task")])
    assert len({tuple(answer) for answer in answers}) == 3


def test_an_adapter_may_be_unloaded_while_a_request_for_it_is_under_way(served: Any) -> None:
    adapters = served.adapters()
    scheduler = served.scheduler(1, adapters)
    for number in range(2):
        scheduler.add(Request(str(number), [4, 5], GREEDY, adapter="task"))
    scheduler.step()
    adapters.unload("task")
    tokens = []
    while scheduler.has_work:
        tokens += [event.token_id for event in scheduler.step()]
    assert tokens[-STEPS:] == expected(served.merged["task"], [4, 5])
    with pytest.raises(InputError, match=r"no adapter 'task' is loaded; .*style"):
        scheduler.add(Request("late", [4, 5], GREEDY, adapter="task"))
    adapters.load("task", served.files["style"])
    scheduler.add(Request("again", [4, 5], GREEDY, adapter="task"))
    assert [scheduler.step()[0].token_id for _ in range(STEPS)] == expected(served.merged["style"], [4, 5])


def test_prefixes_are_shared_within_an_adapter_only_and_not_with_another_of_its_name(served: Any) -> None:
    adapters, prompt = served.adapters(), list(range(40))
    scheduler = served.scheduler(1, adapters, PrefixCache(1 << 20))

    def ask(name: str | None) -> tuple[int, list[int | None]]:
        scheduler.add(Request("", prompt, GREEDY, adapter=name))
        events = []
        while scheduler.has_work:
            events += scheduler.step()
        return events[0].cached_tokens, [event.token_id for event in events]

    for name in (None, "style", "task"):
        assert ask(name) == (0, expected(served.merged[name], prompt))
        assert ask(name) == (32, expected(served.merged[name], prompt))
    adapters.load("task", served.files["style"])
    assert ask("task") == (32, expected(served.merged["style"], prompt))


def test_the_adapted_graph_holds_no_weights_of_its_own(served: Any) -> None:
    plain, adapted = served.artifact.path, served.artifact.folder / served.graph.adapters.file
    weights = sum(parameter.numel() for parameter in served.merged[None].parameters()) * 4
    assert plain.stat().st_size > weights
    assert adapted.stat().st_size < 0.4 * weights


@pytest.mark.parametrize(
    "scheme", [{"scheme": "int8-dynamic"}, {"scheme": "int4"}, {"scheme": "nf4"}, {"scheme": "fp16"}]
)
def test_adapters_stand_beside_a_quantized_base(served: Any, scheme: dict[str, str], tmp_path: Any) -> None:
    """With zero factors the adapted graph is the quantized base, with real ones near the merged model."""
    from compress.quantize.step import run
    from runtime.adapters import Adapter, adapter_inputs
    from runtime.decoder import score
    from runtime.session import open_session

    config = validate({"method": "quantize", **scheme})
    after, _ = run(config, served.artifact, tmp_path, Calibration(lambda count: iter(())))
    carry_adapters(served.artifact, after)
    graph = served.graph
    tokens = np.random.default_rng(1).integers(0, 96, (3, 10))
    session = open_session(tmp_path / graph.adapters.file)
    plain = score(open_session(after.path), graph, tokens)

    def logits(adapter: Adapter) -> Any:
        return score(session, graph, tokens, adapter_inputs([adapter] * 3, graph.adapters))

    assert np.abs(logits(Adapter(1, {}, "")) - plain).max() < 1e-4 * np.abs(plain).max()
    style = served.adapters().find("style")
    with torch.no_grad():
        wanted = served.merged["style"](torch.from_numpy(tokens)).logits.numpy()
    error = np.linalg.norm(logits(style) - wanted) / np.linalg.norm(wanted)
    assert error < 0.3 < np.linalg.norm(plain - wanted) / np.linalg.norm(wanted)


def test_a_layer_is_found_within_a_packed_one(tmp_path: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    packed = rng.standard_normal((9, 4)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "packed",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("y", TensorProto.FLOAT, ["n", 9])],
        [numpy_helper.from_array(np.ascontiguousarray(packed.T), "w")],
    )
    onnx.save(helper.make_model(graph), tmp_path / "packed.onnx")
    (site,) = find_sites(tmp_path / "packed.onnx", {"key": packed[4:7]})
    assert (site.reads, site.writes, site.offset, site.outputs, site.width) == ("x", "y", 4, 3, 9)
    with pytest.raises(ExportError, match="'other' is not a layer of the exported graph"):
        find_sites(tmp_path / "packed.onnx", {"other": packed[4:7] + 1})


def test_a_file_that_is_no_adapter_of_this_model_is_refused(served: Any, tmp_path: Any) -> None:
    import onnxruntime as ort

    adapters = served.adapters()
    (tmp_path / "noise").write_bytes(b"noise" * 9)
    with pytest.raises(AdapterError, match="noise: not an onnxruntime adapter"):
        adapters.load("a", tmp_path / "noise")
    with pytest.raises(AdapterError, match=r"nowhere: no such file"):
        adapters.load("a", tmp_path / "nowhere")
    for factors, message in (
        ({"other.lora_A": np.zeros((2, 2), np.float32)}, "'other.lora_A' is no layer that this model adapts"),
        (
            {"model.layers.0.self_attn.q_proj.lora_A": np.zeros((7, 2), np.float32)},
            r"is \[7, 2\] where this model takes \[32, 2\]",
        ),
    ):
        stored = ort.AdapterFormat()
        stored.set_parameters(
            {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in factors.items()}
        )
        stored.export_adapter(str(tmp_path / "strange"))
        with pytest.raises(AdapterError, match=message):
            adapters.load("a", tmp_path / "strange")
    assert adapters.names == ("style", "task")
    with pytest.raises(AdapterError, match="no adapter 'nobody' is loaded"):
        adapters.unload("nobody")


@pytest.mark.parametrize("scheme", [{"scheme": "int8-dynamic"}, {"scheme": "int4"}])
def test_adapters_follow_an_embedding_out_of_its_graph(
    served: Any, scheme: dict[str, str], tmp_path: Any
) -> None:
    from compress.embedding import take_out
    from compress.quantize.step import run
    from runtime.decoder import Decoder
    from runtime.phases import open_phases
    from runtime.session import open_session

    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
    config = validate({"method": "quantize", **scheme})
    inside, _ = run(config, served.artifact, tmp_path / "inside", Calibration(lambda count: iter(())))
    carry_adapters(served.artifact, inside)
    outside = take_out(inside, tmp_path / "outside", least=1)
    assert outside is not None
    adapters, found = served.adapters(), []
    for each in (inside, outside):
        adapted = open_session(each.folder / served.graph.adapters.file)
        phases = open_phases(each.folder.joinpath, each.graph)
        decoder = Decoder(phases, each.graph, 2, adapted=lambda adapted=adapted: adapted)
        rows = [
            decoder.prefill(slot, np.arange(9), adapters.find(n)) for slot, n in enumerate(["style", None])
        ]
        found.append([*rows, decoder.decode(np.array([3, 4])).copy()])
    for got, wanted in zip(*found, strict=True):
        np.testing.assert_array_equal(got, wanted)
