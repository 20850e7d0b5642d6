"""Batched feed-forward models: tensors in, tensors out; or a person's input in, an answer out.

It checks everything a request can get wrong before onnxruntime sees it. It does not batch across requests.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from PIL.Image import Image
from tokenizers import Tokenizer

from runtime import processing as proc
from runtime.answers import Run, answer
from runtime.bundle import Bundle
from runtime.captions import Captioned, encode_captioned
from runtime.drawing import denoise, encode_requests
from runtime.errors import BatchTooLarge, InputError
from runtime.graphs import batch_graphs, own_nodes
from runtime.manifest import (
    CaptionedProcessing,
    DrawingProcessing,
    FeedForwardGraph,
    GraphProcessing,
    ImageProcessing,
    Manifest,
    TensorSpec,
    TextProcessing,
    WordProcessing,
)
from runtime.processing import Array
from runtime.session import available_cores, open_session
from runtime.spans import encode_questions
from runtime.words import check_words, encode_words, number_words

# Tokenizing takes some 150 bytes and 0.7 us a character, of whatever the model then cuts off.
MAX_CHARACTERS = 2**22
# Names, dtypes and shapes that fit a signature: looking them up takes a third of the time of checking them.
REMEMBERED = 1024


class TensorModel:
    """A feed-forward bundle, loaded. `run` and `predict` may be called from several threads.

    `max_pixels` bounds an encoded image, which is refused before it is decoded.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, max_pixels: int = proc.MAX_PIXELS
    ) -> None:
        graph = bundle.manifest.graph
        if not isinstance(graph, FeedForwardGraph):
            raise TypeError(f"{bundle.path} holds a {graph.kind} graph")
        self.bundle = bundle
        self.manifest: Manifest = bundle.manifest
        # Sums over neighbours meet at the same rows, and onnxruntime's threads lose some of them there.
        alone = isinstance(self.manifest.processing, GraphProcessing)
        threads = 1 if alone else threads or available_cores()
        self._session = open_session(bundle.file(graph.file), threads=threads)
        # Cores that a run keeps busy.
        self.cores = threads if self._session.get_providers()[0] == "CPUExecutionProvider" else 1
        self._max_pixels = max_pixels
        self._inputs = {spec.name: spec for spec in self.manifest.signature.inputs}
        self._fitting: set[tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]] = set()
        self._outputs = [output.name for output in self.manifest.signature.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Named tensors to named tensors, as the signature says.

        Raises InputError naming what does not fit.
        """
        self.check(inputs)
        return self.run_checked(inputs)

    def run_checked(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """`run` for inputs that `check` has seen. Raises InputError for values that the graph refuses."""
        processing = self.manifest.processing
        if isinstance(processing, DrawingProcessing) and processing.diffusion:
            return denoise(self._run, inputs, processing.diffusion)
        return self._run(inputs)

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The graph, once."""
        try:
            outputs = self._session.run(self._outputs, dict(inputs))
        except InvalidArgument as error:  # such as a position outside its table
            reason = str(error).splitlines()[0].rpartition(" : ")[2]
            raise InputError(f"{self.manifest.tag} cannot take these values: {reason[:300]}") from None
        return dict(zip(self._outputs, outputs, strict=True))

    def predict(
        self, items: Sequence[Image | bytes | str | Array | Captioned | Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Answers in the task's own words, one for each item.

        As the bundle's processing says, an item is an image (or its encoded bytes), one with captions (see
        `runtime.captions`), a text, a word, a question with its context (see `runtime.spans`), a label to
        draw (see `runtime.drawing`), a graph (see `runtime.graphs`), or one example's tensor.
        """
        inputs = self.encode(items)
        return self.answers(self.run(inputs), inputs, items)

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Raise InputError unless `inputs` fit the signature: names, dtypes, shapes, finite, not empty.

        Words' numbers and texts' tokens have to be of those that the model has, and texts padded on the
        right.
        """
        signature = tuple([(name, tensor.dtype, tensor.shape) for name, tensor in inputs.items()])
        if signature not in self._fitting:
            self._check_signature(inputs)
            if len(self._fitting) < REMEMBERED:
                self._fitting.add(signature)
        for name, tensor in inputs.items():
            _check_values(tensor, name)
        if isinstance(self.manifest.processing, WordProcessing):
            check_words(inputs, self.manifest.processing, len(self.manifest.labels))
        if self._texts:
            proc.check_texts(inputs, self._vocabulary, self._texts.max_length)

    def _check_signature(self, inputs: Mapping[str, Array]) -> None:
        expected = self._inputs
        if inputs.keys() != expected.keys():
            raise self._misnamed(inputs)
        axes: dict[str, int] = {}
        for name, spec in expected.items():
            _check_tensor(inputs[name], spec, axes)

    def _misnamed(self, inputs: Mapping[str, Array]) -> InputError:
        expected, tag = self._inputs, self.manifest.tag
        if unknown := sorted(inputs.keys() - expected.keys()):
            return InputError(f"unknown input '{unknown[0]}'; {tag} takes {_list(expected)}")
        missing = min(expected.keys() - inputs.keys())
        return InputError(f"input '{missing}' is missing; {tag} takes {_list(expected)}")

    @cached_property
    def _texts(self) -> TextProcessing | None:
        """How texts are read, by themselves or beside an image."""
        processing = self.manifest.processing
        if isinstance(processing, CaptionedProcessing):
            return processing.text
        return processing if isinstance(processing, TextProcessing) else None

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        return proc.load_tokenizer(self.bundle.file(self._texts.tokenizer)) if self._texts else None

    @cached_property
    def _vocabulary(self) -> int:
        """One more than the last token, padding included; 0 where the bundle does not tokenize."""
        if self._texts is None or self._tokenizer is None:
            return 0
        return max(self._texts.pad_id, *self._tokenizer.get_vocab().values()) + 1

    @cached_property
    def _rows(self) -> dict[str, int]:
        return number_words(self.manifest.labels)

    def encode(self, items: Sequence[Any], *, truncate: bool | None = None) -> dict[str, Array]:
        """Items as the graph's inputs, as the bundle's processing says. A list of ints is a text's tokens.

        `truncate`: whether texts of more tokens than the model reads are cut, or refused by PromptTooLong.
        None: texts are cut, and lists of tokens refused.
        Raises InputError; BatchTooLarge for texts of over `MAX_CHARACTERS` together, or images of over
        `processing.LARGEST_IMAGES` times `max_pixels`.
        """
        processing = self.manifest.processing
        if (characters := sum(map(_characters, items))) > MAX_CHARACTERS:
            raise BatchTooLarge(f"{characters:,} characters at once; send at most {MAX_CHARACTERS:,}")
        if isinstance(processing, ImageProcessing | CaptionedProcessing):
            images = [item.image if isinstance(item, Captioned) else item for item in items]
            proc.check_pixels(images, self._max_pixels)
        names = [spec.name for spec in self.manifest.signature.inputs]
        if isinstance(processing, ImageProcessing):
            return {names[0]: proc.preprocess_images(items, processing, max_pixels=self._max_pixels)}
        if isinstance(processing, TextProcessing):
            assert self._tokenizer is not None
            if processing.pair:
                encoded = encode_questions(self._tokenizer, items, processing)
            elif items and all(isinstance(item, list) for item in items):
                encoded = proc.pad_tokens(items, processing, truncate=truncate is True)
            else:
                texts = (self._tokenizer, items, processing)
                encoded = proc.encode_texts(*texts, truncate=truncate is not False)
            return {name: encoded[name] for name in names}
        if isinstance(processing, CaptionedProcessing):
            assert self._tokenizer is not None
            about = (processing, self._tokenizer, self.manifest.labels)
            return encode_captioned(items, *about, max_pixels=self._max_pixels)
        if isinstance(processing, DrawingProcessing):
            return encode_requests(items, processing, self.manifest.labels)
        if isinstance(processing, WordProcessing):
            return encode_words(items, processing, self._rows)
        if isinstance(processing, GraphProcessing):
            return batch_graphs(items, processing)
        if not len(items):
            raise InputError("the batch is empty; send at least one tensor")
        return {names[0]: np.stack([np.asarray(item) for item in items])}

    def answers(
        self, outputs: Mapping[str, Array], inputs: Mapping[str, Array], items: Sequence[Any]
    ) -> list[dict[str, Any]]:
        """The graph's outputs in the task's own words, one for each item, without what padded a batch."""
        about = self.manifest
        decoded = answer(
            Run(about.task, about.processing, about.labels, inputs, outputs, self._tokenizer, items)
        )
        return own_nodes(decoded, items) if self.manifest.processing.kind == "graph" else decoded


def _characters(item: Any) -> int:
    """How much text there is to tokenize in an item: a text itself, a question's, or captions'."""
    if isinstance(item, Captioned):
        return sum(map(len, item.captions))
    if isinstance(item, Mapping):
        return sum(len(part) for part in item.values() if isinstance(part, str))
    return len(item) if isinstance(item, str) else 0


def _check_tensor(tensor: Array, spec: TensorSpec, axes: dict[str, int]) -> None:
    if tensor.dtype != spec.dtype:
        raise InputError(f"input '{spec.name}' is {tensor.dtype}; send {spec.dtype}")
    shape = tensor.shape
    if len(shape) != len(spec.shape):
        raise InputError(f"input '{spec.name}' has shape {list(shape)}; send {_shape(spec)}")
    for axis, size in zip(spec.shape, shape, strict=True):
        wanted = axes.setdefault(axis, size) if isinstance(axis, str) else axis
        if size != wanted:
            of_others = f", whose '{axis}' is {wanted} in the others" if isinstance(axis, str) else ""
            raise InputError(f"input '{spec.name}' has shape {list(shape)}; send {_shape(spec)}{of_others}")
    if 0 in shape:
        raise InputError(f"input '{spec.name}' is empty (shape {list(shape)}); send at least one row")


def _check_values(tensor: Array, name: str) -> None:
    # For a row, numpy's `all` takes three times as long as a search for the byte that False is.
    if tensor.dtype.kind == "f" and b"\0" in np.isfinite(tensor).tobytes():
        raise InputError(f"input '{name}' holds NaN or infinite values; send finite numbers")


def _shape(spec: TensorSpec) -> str:
    return f"[{', '.join(str(axis) for axis in spec.shape)}]"


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in names)
