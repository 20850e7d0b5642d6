"""Whether a graph computes what the torch module computes: real inputs, batched, ragged, with the cache on.

The error is the largest absolute difference over the largest absolute value of the torch output. It judges
the export only; what a compression step changes is the gate's business.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from compress.errors import ExportError, first_line
from runtime.decoder import Decoder
from runtime.manifest import DecoderGraph
from runtime.processing import Array
from runtime.session import open_session

# float32 over a few hundred accumulated products keeps about five digits.
TOLERANCE = 1e-4
# In a graph of integers the last digit of a sum may round an activation the other way: a step in 255.
ROUNDING_TOLERANCE = 2e-2
PROMPT_LENGTHS = (17, 5, 30)
DECODE_STEPS = 4


def check_feedforward(
    module: nn.Module, path: Path, inputs: Mapping[str, Array], output_names: Sequence[str]
) -> dict[str, float]:
    """Compare on the whole batch and on its first row alone. Raises ExportError past the tolerance."""
    # One thread: with several, a graph network's sums are not what its bundle computes (`runtime.tensor`).
    session = open_session(path, threads=1)
    errors = []
    for rows in (len(next(iter(inputs.values()))), 1):
        batch = {name: np.ascontiguousarray(value[:rows]) for name, value in inputs.items()}
        got = session.run(list(output_names), batch)
        wanted = run_module(module, batch)
        errors += [_relative_error(g, w.numpy()) for g, w in zip(got, wanted, strict=True)]
    return _judge(errors, path)


def check_decoder(model: Any, path: Path, graph: DecoderGraph, tokens: Array) -> dict[str, float]:
    """Prefill prompts of different lengths from `tokens` [stream], then decode them together in one batch."""
    lengths = [min(length, graph.context_length - DECODE_STEPS - 1) for length in PROMPT_LENGTHS]
    decoder = Decoder(open_session(path), graph, len(lengths))
    sequences = [list(tokens[start : start + length]) for start, length in enumerate(lengths)]
    errors = []
    for slot, sequence in enumerate(sequences):
        logits = decoder.prefill(slot, np.array(sequence))
        errors.append(_relative_error(logits, _last_logits(model, sequence)))
        sequence.append(int(logits.argmax()))
    for _ in range(DECODE_STEPS):
        rows = decoder.decode(np.array([sequence[-1] for sequence in sequences])).copy()
        for sequence, logits in zip(sequences, rows, strict=True):
            errors.append(_relative_error(logits, _last_logits(model, sequence)))
            sequence.append(int(logits.argmax()))
    return _judge(errors, path)


def check_encoder_decoder(
    model: Any, path: Path, graph: DecoderGraph, tokens: Array, start_ids: Sequence[int]
) -> dict[str, float]:
    """Encode sources of different lengths from `tokens` [stream], then decode their answers in one batch."""
    assert graph.encoder is not None
    lengths = [min(length, graph.encoder.context_length) for length in PROMPT_LENGTHS]
    sources = [tokens[start : start + length] for start, length in enumerate(lengths)]
    encoder = open_session(path.with_name(graph.encoder.file))
    decoder = Decoder(open_session(path), graph, len(sources), encoder=encoder)
    answers, errors = [list(start_ids) for _ in sources], []
    for slot, (source, answer) in enumerate(zip(sources, answers, strict=True)):
        decoder.encode(slot, source)
        logits = decoder.prefill(slot, np.array(answer))
        errors.append(_relative_error(logits, _answer_logits(model, source, answer)))
        answer.append(int(logits.argmax()))
    for _ in range(DECODE_STEPS):
        rows = decoder.decode(np.array([answer[-1] for answer in answers])).copy()
        for source, answer, logits in zip(sources, answers, rows, strict=True):
            errors.append(_relative_error(logits, _answer_logits(model, source, answer)))
            answer.append(int(logits.argmax()))
    return _judge(errors, path)


def _answer_logits(model: Any, source: Array, answer: Sequence[int]) -> Array:
    with torch.inference_mode():
        output = model(input_ids=torch.tensor(source)[None], decoder_input_ids=torch.tensor([list(answer)]))
    logits: Array = output.logits[0, -1].numpy()
    return logits


def check_logits(got: Array, wanted: Array, path: Path) -> dict[str, float]:
    """Compare logits of any shape. Raises ExportError past the tolerance."""
    return _judge([_relative_error(got, wanted)], path)


def _last_logits(model: Any, tokens: Sequence[int]) -> Array:
    with torch.inference_mode():
        logits: Array = model(input_ids=torch.tensor([list(tokens)])).logits[0, -1].numpy()
    return logits


def _relative_error(got: Array, wanted: Array) -> float:
    return float(np.abs(got - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))


def run_module(module: nn.Module, batch: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
    """The module's outputs for a batch. Raises ExportError where it fails, or gives something else."""
    name = type(module).__name__
    try:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(value) for value in batch.values()))
    except Exception as error:  # whatever a module of the user's own raises
        given = ", ".join(f"'{key}' {value.dtype} {list(value.shape)}" for key, value in batch.items())
        raise ExportError(f"{name} does not run on its data ({given}): {first_line(error)}") from None
    found = tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)
    if other := [type(each).__name__ for each in found if not isinstance(each, torch.Tensor)]:
        raise ExportError(f"{name} returns a {other[0]}; let its forward return a tensor, or a tuple of them")
    return found


def _judge(errors: Sequence[float], path: Path) -> dict[str, float]:
    error = float(np.max(errors))  # which is no number where any of them is none
    if not np.isfinite(error):
        raise ExportError(
            f"{path.name}: the outputs for real inputs are not finite; look for NaN and very large values in "
            "the model's weights and in the data"
        )
    rounds = any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)
    tolerance = ROUNDING_TOLERANCE if rounds else TOLERANCE
    if not error <= tolerance:
        raise ExportError(
            f"{path.name}: the graph's outputs differ from torch's by {error:.1e} (relative; {tolerance:.0e} "
            "is allowed); the model uses an operation that does not export faithfully"
        )
    return {"relative_error": error, "tolerance": tolerance}
