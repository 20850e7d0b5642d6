"""A bundle, loaded: the door of this package. `load_model(Bundle.open(path))` is all a caller needs."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from onnxruntime import InferenceSession

from runtime.adapters import Adapters, adapter_inputs
from runtime.bundle import Bundle
from runtime.chat import ChatTemplate
from runtime.constraint import grammar_tokenizer
from runtime.decoder import Decoder, score
from runtime.errors import CapacityError, InputError, PromptTooLong
from runtime.kv_cache import bytes_per_token
from runtime.manifest import DecoderGraph, GenerationProcessing, Manifest
from runtime.memory import available_memory
from runtime.pacing import measured_chunk
from runtime.phases import open_phases
from runtime.prefix_cache import PrefixCache
from runtime.processing import MAX_PIXELS, Array, load_tokenizer
from runtime.request import check_tokens
from runtime.sampling import SamplingParams
from runtime.scheduler import PREFILL_CHUNK, Request, Scheduler
from runtime.session import open_session
from runtime.speculation import DraftModel, Proposer
from runtime.tensor import TensorModel
from runtime.text import TextStream

if TYPE_CHECKING:
    from llguidance import LLTokenizer

# Of a scheduler's memory, what running sequences may take; the rest keeps shared prefixes.
ROWS_SHARE = 0.75
MIN_KV_TOKENS = 16


class TextModel:
    """A decoder bundle, loaded: weights and tokenizer, shared by any number of schedulers."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        graph, processing = bundle.manifest.graph, bundle.manifest.processing
        if not isinstance(graph, DecoderGraph) or not isinstance(processing, GenerationProcessing):
            raise TypeError(f"{bundle.path} does not hold a decoder")
        self.bundle = bundle
        self.manifest: Manifest = bundle.manifest
        self.tokenizer = load_tokenizer(bundle.file(processing.tokenizer))
        self.graph, self._processing = graph, processing
        self._threads = threads
        self._phases = open_phases(bundle.file, graph, threads=threads)
        self._encoder = (
            open_session(bundle.file(graph.encoder.file), threads=threads) if graph.encoder else None
        )
        self.adapters = Adapters(graph.adapters)
        for name, file in graph.adapters.files.items() if graph.adapters else ():
            self.adapters.load(name, bundle.file(file))

    def encode(self, text: str) -> list[int]:
        """A prompt's tokens, with the beginning-of-text token where the model wants one.

        The source of an encoder gets whatever the tokenizer puts around a text. Raises InputError for an
        empty prompt where the model has no such token, and PromptTooLong for one that is not worth reading.
        """
        self._check_length(text)
        if self.graph.encoder:
            return list(self.tokenizer.encode(text).ids)
        bos = self._processing.bos_id
        tokens = ([] if bos is None else [bos]) + self.tokenizer.encode(text, add_special_tokens=False).ids
        if not tokens:
            raise InputError("the prompt is empty; send some text")
        return tokens

    @cached_property
    def grammar_tokenizer(self) -> "LLTokenizer":
        """The tokenizer that a `runtime.constraint.Constraint` is made with; the first use builds it."""
        return grammar_tokenizer(self.tokenizer, self._processing.eos_ids)

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """How a conversation becomes a prompt. Raises InputError for a template that cannot be read."""
        return ChatTemplate(self._processing.chat_template)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """A conversation's tokens, up to where the assistant is to speak. Raises InputError."""
        text = self.chat_template.render(messages)
        if self._processing.chat_template is None:
            return self.encode(text)
        self._check_length(text)
        # A model's own template writes its beginning-of-text token itself.
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """A prompt's text. Raises InputError for a token that does not exist."""
        check_tokens(tokens, self.graph.vocab_size)
        return str(self.tokenizer.decode(tokens))

    @cached_property
    def _longest_token(self) -> int:
        """Characters of the vocabulary's longest token."""
        return max(map(len, self.tokenizer.get_vocab()))

    def _check_length(self, text: str) -> None:
        """Raise PromptTooLong for a text that cannot fit, whatever its tokens are.

        Tokenizing takes up to 250 bytes and 2 us a character: what nobody will read must not cost gigabytes.
        vLLM refuses by the same bound.
        """
        tokens = (self.graph.encoder or self.graph).context_length
        if len(text) > (most := tokens * self._longest_token):
            room = "the encoder reads" if self.graph.encoder else "the context holds"
            raise PromptTooLong(
                f"the prompt has {len(text)} characters and {room} {tokens} tokens, at most {most}; "
                "shorten it"
            )

    @cached_property
    def _adapted_session(self) -> InferenceSession:
        """Over the graph that takes adapters. The first use opens it, while the plain ones go on serving."""
        assert self.graph.adapters is not None
        return open_session(self.bundle.file(self.graph.adapters.file), threads=self._threads)

    def scheduler(
        self, slots: int = 8, *, memory: int | None = None, proposer: Proposer | None = None
    ) -> Scheduler:
        """A scheduler with a KV cache of its own for `slots` sequences at once.

        How it reads prompts follows from what calls take here: a few are timed, half a second at most or two.
        `memory` bounds, in bytes, the keys and values of running sequences and of shared prefixes together
        (default: half of what is available). `proposer` speculates: `PromptLookup()`, or another model's
        `draft_for(this)`. Raises CapacityError where the memory holds no sequence.
        """
        memory = available_memory() // 2 if memory is None else memory
        # Sources get as many tokens as answers do.
        token, longest = bytes_per_token(self.graph), self.graph.context_length
        if encoder := self.graph.encoder:
            token, longest = token + bytes_per_token(encoder), max(longest, encoder.context_length)
        rows = min(slots * longest * token, int(ROWS_SHARE * memory))
        if rows // token < MIN_KV_TOKENS:
            raise CapacityError(
                f"{memory:,} bytes of KV cache hold {rows // token} tokens of {self.manifest.tag}; "
                f"it needs {int(MIN_KV_TOKENS * token / ROWS_SHARE):,} bytes or more"
            )
        # What is cached of an answer depends on its whole source: there are no prefixes to share.
        prefixes = None if self.graph.encoder else PrefixCache(min(memory - rows, rows))
        decoder = self._decoder(slots, rows // token)
        return self._schedule(decoder, prefixes, proposer, measured_chunk(decoder))

    def draft_for(self, target: "TextModel") -> DraftModel:
        """This model as a draft that speculates for `target`. Raises InputError where their tokens differ."""
        if self.tokenizer.get_vocab() != target.tokenizer.get_vocab():
            raise InputError(
                f"{self.manifest.tag} cannot draft for {target.manifest.tag}: their tokenizers differ; "
                "take a draft that was distilled or pruned from the same model"
            )
        if self.graph.encoder:
            raise InputError(f"{self.manifest.tag} reads a source and cannot draft; take a decoder alone")
        return DraftModel(self._decoder(slots=1), target.graph.vocab_size)

    def text_stream(self, stop: Sequence[str] = (), prompt: Sequence[int] = ()) -> TextStream:
        """A fresh detokenizer for one answer to `prompt`, which a decoder alone goes on from."""
        return TextStream(self.tokenizer, stop, () if self.graph.encoder else prompt)

    def generate(
        self,
        prompt: str | list[int],
        params: SamplingParams,
        stop: Sequence[str] = (),
        adapter: str | None = None,
    ) -> Iterator[str]:
        """Continue one prompt in process, giving the text piece by piece."""
        scheduler = self._schedule(self._decoder(slots=1))
        tokens = self.encode(prompt) if isinstance(prompt, str) else prompt
        stream = self.text_stream(stop, tokens)
        scheduler.add(Request("", tokens, params, adapter=adapter))
        while scheduler.has_work and not stream.stopped:
            for event in scheduler.step():
                if event.token_id is not None and (text := stream.push(event.token_id)):
                    yield text
        if rest := stream.flush():
            yield rest

    def score(self, input_ids: Array, file: str | None = None, adapter: str | None = None) -> Array:
        """Logits after every token, float32 [batch, sequence, vocabulary], from the graph that ships.

        `file` names one of several graphs (default: the one that a call of this size runs on).
        """
        if self.graph.encoder:
            raise InputError(f"{self.manifest.tag} answers a source; it cannot score a prompt")
        wanted = self.adapters.find(adapter)
        if wanted and self.graph.adapters:
            more = adapter_inputs([wanted] * len(input_ids), self.graph.adapters)
            embedding = self._phases.choose(1).embedding
            return score(self._adapted_session, self.graph, input_ids, more, embedding=embedding)
        chosen = self._phases.choose(input_ids.size)
        if file is not None:
            chosen = next(phase for phase in self._phases if phase.file == file)
        return score(chosen.session, self.graph, input_ids, embedding=chosen.embedding)

    def _decoder(self, slots: int, kv_tokens: int | None = None) -> Decoder:
        return Decoder(
            self._phases, self.graph, slots, kv_tokens, lambda: self._adapted_session, self._encoder
        )

    def _schedule(
        self,
        decoder: Decoder,
        prefixes: PrefixCache | None = None,
        proposer: Proposer | None = None,
        prefill_chunk: int = PREFILL_CHUNK,
    ) -> Scheduler:
        return Scheduler(
            decoder,
            self._processing.eos_ids,
            adapters=self.adapters,
            prefix_cache=prefixes,
            proposer=proposer,
            prefill_chunk=prefill_chunk,
            start_ids=self._processing.start_ids,
        )


def load_model(
    bundle: Bundle, *, threads: int | None = None, max_pixels: int = MAX_PIXELS
) -> TensorModel | TextModel:
    """Load what the bundle holds. `threads` bounds the cores of one run (default: all that may be used)."""
    if isinstance(bundle.manifest.graph, DecoderGraph):
        return TextModel(bundle, threads=threads)
    return TensorModel(bundle, threads=threads, max_pixels=max_pixels)
