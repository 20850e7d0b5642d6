"""Continuous batching: sequences join and leave a running batch between any two steps.

State is a queue and a list; the verbs are `add`, `step` and `cancel`. No I/O, no threads, no text: one owner
calls it in a loop. A sequence's slot is its place in `running`: those that decode come first, so that the
decoder's rows are dense, then those whose prompt is still being read.
A step decodes one token for everyone and then reads one chunk of one prompt, so no prompt, however long,
holds up the others' next token for longer than a chunk takes. The trade-off: a long prompt is read somewhat
slower than in one go.
"""

import heapq
from itertools import count

import numpy as np

from runtime.adapters import Adapters
from runtime.decoder import Decoder
from runtime.errors import InputError, PromptTooLong
from runtime.logprobs import TokenLogprob, logprobs
from runtime.penalties import penalize
from runtime.prefix_cache import PrefixCache
from runtime.processing import Array
from runtime.request import FinishReason, Request, SchedulerStatistics, TokenEvent, check_tokens
from runtime.sampling import Sampler
from runtime.sequence import Sequence
from runtime.speculation import Proposer, Speculation

__all__ = ["FinishReason", "Request", "Scheduler", "SchedulerStatistics", "TokenEvent", "TokenLogprob"]

# At most; `runtime.pacing` says how many where that takes long.
PREFILL_CHUNK = 64
# A prompt that nobody waits beside is read in chunks so many times as long: fewer operators to start, fuller
# kernels. Whoever comes meanwhile waits for the rest of one.
ALONE = 2
# What is left of a prompt after a chunk is read with it where it is at most a third of one: starting a call
# costs as much as reading a dozen tokens.
REST = 1 / 3


class Scheduler:
    """Requests in, token events out, over one decoder.

    `adapters` are those that requests may name; `prefix_cache` shares the beginnings of prompts; `proposer`
    speculates while one sequence runs alone.
    With an encoder, a request's prompt is its source, and its answer begins after `start_ids`. What is cached
    then depends on the whole source, so such a scheduler takes no `prefix_cache`.
    """

    def __init__(
        self,
        decoder: Decoder,
        eos_ids: tuple[int, ...] = (),
        *,
        adapters: Adapters | None = None,
        prefix_cache: PrefixCache | None = None,
        proposer: Proposer | None = None,
        prefill_chunk: int = PREFILL_CHUNK,
        start_ids: tuple[int, ...] = (),
    ) -> None:
        self.decoder = decoder
        self._eos_ids = frozenset(eos_ids)
        self._adapters = adapters or Adapters()
        self._prefixes = prefix_cache
        self._speculation = Speculation(proposer) if proposer else None
        self._chunk = prefill_chunk
        self._start_ids = start_ids if decoder.source else ()
        self._sampler = Sampler()
        # A sequence that is alone must fit: no answer grows beyond this.
        self._limit = min(decoder.graph.context_length, decoder.cache.tokens)
        self._longest_prompt = self._limit - 1
        if decoder.source:
            self._longest_prompt = min(decoder.source.graph.context_length, decoder.source.cache.tokens)
        self._arrivals = count()
        self._waiting: list[tuple[tuple[int, int], Sequence]] = []
        self._running: list[Sequence] = []
        self._decoding = 0
        # Whose prompt the last step has read: it decodes from the next one on.
        self._read: Sequence | None = None
        self._shortest_is_next = True
        self._preemptions = self._hit_tokens = self._query_tokens = 0

    @property
    def running(self) -> int:
        """How many sequences hold a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many requests wait for one."""
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._running or self._waiting)

    @property
    def statistics(self) -> SchedulerStatistics:
        """What the scheduler holds now, and what it has counted."""
        return SchedulerStatistics(
            running=self.running,
            waiting=self.waiting,
            kv_tokens_used=int(self.decoder.lengths.sum()),
            kv_tokens_capacity=self.decoder.cache.tokens,
            prefix_hit_tokens=self._hit_tokens,
            prefix_query_tokens=self._query_tokens,
            preemptions=self._preemptions,
            draft_tokens=self._speculation.draft_tokens if self._speculation else 0,
            accepted_tokens=self._speculation.accepted_tokens if self._speculation else 0,
            graph_calls=dict(self.decoder.graph_calls),
        )

    def add(self, request: Request) -> None:
        """Queue a request. Raises PromptTooLong or InputError for one that can never run."""
        vocabulary = self.decoder.graph.vocab_size
        if not request.prompt:
            raise InputError("the prompt is empty; send at least one token")
        if len(request.prompt) > self._longest_prompt:
            raise PromptTooLong(
                f"the prompt has {len(request.prompt)} tokens and {self._room_said()}; "
                f"shorten it to at most {self._longest_prompt}"
            )
        check_tokens(request.prompt, vocabulary)
        if not all(0 <= token < vocabulary for token in request.params.logit_bias):
            raise InputError(f"a token of logit_bias is outside the vocabulary of {vocabulary}")
        adapter = self._adapters.find(request.adapter)
        self._wait(Sequence(request, next(self._arrivals), adapter, self._start_ids))

    def step(self) -> list[TokenEvent]:
        """Decode one token for every sequence that is ready, then read one more chunk of a prompt."""
        self._join()
        self._preempt()
        self._admit()
        events = self._decode() if self._decoding else []
        return events + self._prefill() if self._decoding < len(self._running) else events

    def cancel(self, request_id: str) -> None:
        """Forget a request and free its slot at once. Unknown ids are ignored: it may just have ended."""
        self._waiting = [entry for entry in self._waiting if entry[1].request.id != request_id]
        heapq.heapify(self._waiting)
        for slot, sequence in enumerate(self._running):
            if sequence.request.id == request_id:
                self._free(slot)
                return

    def _room_said(self) -> str:
        if self.decoder.source:
            return f"the encoder reads {self._longest_prompt}"
        return f"the context holds {self._limit} with the answer"

    def _wait(self, sequence: Sequence) -> None:
        heapq.heappush(self._waiting, (sequence.rank, sequence))

    def _reserved(self) -> int:
        """Tokens in the cache once every running sequence's last one, or its whole prompt, is in it."""
        return sum(len(sequence.tokens) for sequence in self._running)

    def _preempt(self) -> None:
        """Send the last-ranked sequences back to wait while memory does not suffice for the next tokens."""
        while self._reserved() > self.decoder.cache.tokens:
            slot = max(range(len(self._running)), key=lambda slot: self._running[slot].rank)
            self._wait(self._running[slot])
            self._free(slot)
            self._preemptions += 1

    def _admit(self) -> None:
        """Give free slots to those who have waited longest, while their prompts fit beside all others."""
        while self._waiting and len(self._running) < self.decoder.slots:
            sequence = self._waiting[0][1]
            # One step ahead, lest somebody who has just come in is sent out again.
            needed = self._reserved() + len(self._running) + len(sequence.tokens) + 1
            fits = needed <= self.decoder.cache.tokens and self._has_room_for(sequence.source)
            if self._running and not fits:
                return
            heapq.heappop(self._waiting)
            sequence.cached_tokens = 0
            self._running.append(sequence)

    def _has_room_for(self, source: list[int]) -> bool:
        held = self.decoder.source
        return not held or sum(len(each.source) for each in self._running) + len(source) <= held.cache.tokens

    def _prefill(self) -> list[TokenEvent]:
        slot = self._next_to_prefill()
        sequence = self._running[slot]
        if sequence.source and not self.decoder.lengths[slot]:
            self.decoder.encode(slot, np.array(sequence.source))
        self._load_prefix(slot)
        start = int(self.decoder.lengths[slot])
        size = min(self._chunk_size(len(sequence.tokens) - start), self.decoder.longest_call(slot))
        chunk = np.array(sequence.tokens[start : start + size])
        logits = self.decoder.prefill(slot, chunk, sequence.adapter)
        self._save_prefix(slot)
        if self.decoder.lengths[slot] < len(sequence.tokens):
            return []
        self._read = sequence
        return self._extend(slot, logits[None])

    def _chunk_size(self, left: int) -> int:
        """How many of the tokens that are left of a prompt are read now."""
        alone = len(self._running) == 1 and not self._waiting
        size = self._chunk * ALONE if alone else self._chunk
        return left if left <= size * (1 + REST) else size

    def _join(self) -> None:
        """Let the sequence whose prompt has been read decode beside the others, in the slot after theirs.

        That may mean to copy another's keys and values out of it: not while the first token waits.
        """
        for slot in range(self._decoding, len(self._running)):
            if self._running[slot] is self._read:
                self._swap(slot, self._decoding)
                self._decoding += 1
        self._read = None

    def _next_to_prefill(self) -> int:
        """Of the best priority, the prompt with the least left to read and the oldest one in turn.

        So a short prompt need not wait for a long one that came before it, and the long one moves on.
        """
        slots = range(self._decoding, len(self._running))
        priority = min(self._running[slot].request.priority for slot in slots)
        best = [slot for slot in slots if self._running[slot].request.priority == priority]
        oldest = min(best, key=lambda slot: self._running[slot].rank)
        left = {slot: len(self._running[slot].tokens) - self.decoder.lengths[slot] for slot in best}
        shortest = min(best, key=lambda slot: (left[slot], self._running[slot].rank))
        self._shortest_is_next = not self._shortest_is_next or len(best) == 1
        return oldest if self._shortest_is_next and len(best) > 1 else shortest

    def _decode(self) -> list[TokenEvent]:
        if self._speculation and self._decoding == 1:
            return self._speculate(self._speculation)
        return self._decode_plainly()

    def _decode_plainly(self) -> list[TokenEvent]:
        last = [sequence.tokens[-1] for sequence in self._running[: self._decoding]]
        return self._extend(0, self.decoder.decode(np.array(last)))

    def _speculate(self, speculation: Speculation) -> list[TokenEvent]:
        """Decode the only sequence: one token, or several where a proposal turns out to be right."""
        sequence = self._running[0]
        proposed = speculation.propose(sequence.tokens, self._room(sequence))
        events = self._verify(sequence, proposed) if proposed else self._decode_plainly()
        speculation.note(len(proposed), len(events))
        return events

    def _verify(self, sequence: Sequence, proposed: list[int]) -> list[TokenEvent]:
        start = int(self.decoder.lengths[0])
        logits = self.decoder.verify(0, np.array([sequence.tokens[-1], *proposed]))
        events: list[TokenEvent] = []
        for row, token in enumerate([*proposed, -1]):
            # What stands behind is forgotten first: the slot may be freed, and its prefix kept.
            self.decoder.rewind(0, start + row + 1)
            events += self._extend(0, logits[row : row + 1])
            if events[-1].finish_reason or sequence.tokens[-1] != token:
                break
            # The next row's logits follow this token, so it is in the cache already.
        return events

    def _room(self, sequence: Sequence) -> int:
        """How many more tokens than the next one this sequence can and may have."""
        memory = min(self._limit - len(sequence.tokens), self.decoder.cache.tokens - self._reserved())
        wanted = sequence.request.params.max_tokens - sequence.answer_length
        # The last token and what is proposed after it are checked in one call.
        return min(memory, wanted - 1, self.decoder.longest_call(0) - 1)

    def _extend(self, first: int, logits: Array) -> list[TokenEvent]:
        """Choose a token for each decoding sequence from slot `first` on, and retire those that end."""
        sequences = self._running[first : first + len(logits)]
        tokens, reports = choose(self._sampler, logits, sequences)
        events = []
        for sequence, token, report in zip(sequences, tokens, reports, strict=True):
            if not sequence.answer_length:
                self._query_tokens += len(sequence.request.prompt)
                self._hit_tokens += sequence.cached_tokens
            events.append(sequence.extend(token, report, self._eos_ids, self._limit))
        # From the back, so that a slot moved into a gap is one that has been looked at.
        for offset in reversed(range(len(events))):
            if events[offset].finish_reason:
                self._free(first + offset)
        return events

    def _load_prefix(self, slot: int) -> None:
        sequence = self._running[slot]
        if self._prefixes:
            # The last token is always computed: its logits are wanted.
            keys = sequence.keys.of(sequence.tokens, len(sequence.tokens) - 1)
            sequence.cached_tokens += self._prefixes.load(self.decoder.cache, slot, keys)

    def _save_prefix(self, slot: int) -> None:
        sequence = self._running[slot]
        if self._prefixes:
            keys = sequence.keys.of(sequence.tokens, int(self.decoder.lengths[slot]))
            self._prefixes.save(self.decoder.cache, slot, keys)

    def _free(self, slot: int) -> None:
        self._save_prefix(slot)
        if slot < self._decoding:
            self._decoding -= 1
            self._move(self._decoding, slot)
            slot = self._decoding
        self._move(len(self._running) - 1, slot)
        self._running.pop()
        self.decoder.release(len(self._running))

    def _move(self, source: int, target: int) -> None:
        if source != target:
            self.decoder.move(source, target)
            self._running[target] = self._running[source]

    def _swap(self, one: int, other: int) -> None:
        if one != other:
            self.decoder.swap(one, other)
            self._running[one], self._running[other] = self._running[other], self._running[one]


def choose(
    sampler: Sampler, logits: Array, sequences: list[Sequence]
) -> tuple[list[int], list[TokenLogprob | None]]:
    """A token for each row of `logits` [sequences, vocabulary], and its report where the request wants one.

    Penalties, then constraints, then drawing: the logits are overwritten.
    """
    params = [sequence.request.params for sequence in sequences]
    asked = [row for row, wish in enumerate(params) if wish.logprobs is not None]
    raw = logits[asked] if asked else None
    penalize(logits, params, [sequence.counts for sequence in sequences])
    for row, sequence in enumerate(sequences):
        if sequence.request.constraint:
            sequence.request.constraint.mask(logits[row])
    tokens = sampler.sample(logits, params, [sequence.rng for sequence in sequences])
    reports: list[TokenLogprob | None] = [None] * len(sequences)
    if raw is not None:
        tops = [params[row].logprobs or 0 for row in asked]
        for row, report in zip(asked, logprobs(raw, tokens[asked], tops), strict=True):
            reports[row] = report
    return tokens.tolist(), reports
