from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.decoder import Decoder
from runtime.session import open_session
from runtime.speculation import (
    PERIOD,
    TRIAL_STEPS,
    DraftModel,
    FirstOf,
    NGramDraft,
    PromptLookup,
    Speculation,
    _shared,
)


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=6), st.integers(1, 6))
def test_lookup_proposes_what_followed_the_longest_match_last(
    start: list[int], more: list[int], count: int
) -> None:
    lookup = PromptLookup(longest=3, shortest=2)
    lookup.propose(start, count)
    for end in range(len(more) + 1):
        tokens = start + more[:end]
        assert lookup.propose(tokens, count) == searched(tokens, count)


def searched(tokens: list[int], count: int) -> list[int]:
    """The same, by looking everywhere."""
    for size in (3, 2):
        for at in range(len(tokens) - size - 1, -1, -1):
            if tokens[at : at + size] == tokens[-size:]:
                return tokens[at + size : at + size + count]
    return []


def test_lookup_starts_afresh_with_another_sequence() -> None:
    lookup = PromptLookup()
    lookup.propose([1, 2, 3, 1, 2], 4)
    assert lookup.propose([1, 2, 4, 1, 2], 1) == [4]
    assert lookup.propose([7, 8], 4) == []


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_an_n_gram_draft_proposes_what_mostly_follows_the_longest_known_context(
    text: list[int], tokens: list[int]
) -> None:
    proposed = NGramDraft(np.array(text, np.int64), vocab_size=4, longest=2).propose(tokens, 3)
    seen = list(tokens)
    while len(seen) < len(tokens) + 3 and (token := commonest(text, seen)) is not None:
        seen.append(token)
    assert proposed == seen[len(tokens) :]


def commonest(text: list[int], tokens: list[int]) -> int | None:
    """The same, by counting everywhere; of equals, the lowest."""
    for size in (2, 1):
        places = range(len(text) - size) if size <= len(tokens) else ()
        followers = [text[at + size] for at in places if text[at : at + size] == tokens[-size:]]
        if len(followers) > 1:
            return max(sorted(followers), key=followers.count)
    return None


def test_an_n_gram_draft_of_a_large_vocabulary_counts_shorter_contexts() -> None:
    vocabulary = 200_000
    text = np.array([vocabulary - 1, vocabulary - 2, vocabulary - 3] * 4, np.int64)
    draft = NGramDraft(text, vocabulary)
    assert draft.propose(text[:3].tolist(), 2) == text[:2].tolist()


def test_the_first_that_has_an_idea_proposes() -> None:
    proposer = FirstOf(PromptLookup(longest=2), Always())
    assert proposer.propose([5, 6, 7, 5, 6], 2) == [7, 5]
    assert proposer.propose([8, 9], 2) == [1, 1]


def test_a_draft_proposes_its_own_greedy_continuation(decoder_graph: Any) -> None:
    path, graph = decoder_graph
    session = open_session(path, threads=1)
    draft = DraftModel(Decoder(session, graph, 1))

    def greedy(tokens: list[int], count: int) -> list[int]:
        tokens = list(tokens)
        for _ in range(count):
            tokens.append(int(Decoder(session, graph, 1).prefill(0, np.array(tokens)).argmax()))
        return tokens[-count:]

    first = [5, 6, 7, 8]
    proposed = draft.propose(first, 3)
    assert proposed == greedy(first, 3)
    # Accepted in part, in whole, and then another sequence altogether: its cache follows.
    for tokens in ([*first, proposed[0], 9], [*first, *proposed, 3], [1, 2]):
        assert draft.propose(tokens, 3) == greedy(tokens, 3)
    assert len(draft.propose([1] * 62, 8)) == 2  # the draft's context ends
    assert draft.propose([1] * 64, 8) == []


class NotingDecoder(Decoder):
    """Notes how many tokens each call reads."""

    def prefill(self, slot: int, tokens: Any, adapter: Any = None) -> Any:
        self.read = [*getattr(self, "read", []), len(tokens)]
        return super().prefill(slot, tokens, adapter)


def test_a_draft_reads_a_long_prompt_part_by_part(decoder_graph: Any) -> None:
    """In one go it takes gigabytes, for every pair of its tokens, and whoever comes meanwhile waits."""
    path, graph = decoder_graph
    decoder = NotingDecoder(open_session(path, threads=1), graph, 1)
    draft = DraftModel(decoder, chunk=20)
    assert [draft.propose([*range(48 + step)], 4) for step in range(2)] == [[], []]
    parts = draft.propose([*range(50)], 4)
    assert decoder.read == [20, 20, 10]
    assert DraftModel(Decoder(open_session(path, threads=1), graph, 1)).propose([*range(50)], 4) == parts


@given(st.lists(st.integers(0, 2), max_size=20), st.lists(st.integers(0, 2), max_size=20))
def test_what_two_sequences_share_is_their_common_beginning(one: list[int], other: list[int]) -> None:
    shared = _shared(one, other)
    assert one[:shared] == other[:shared]
    assert one[shared : shared + 1] != other[shared : shared + 1] or shared == len(one) == len(other)


def test_a_step_in_which_a_draft_only_reads_says_nothing_of_either_way() -> None:
    """Read part by part, a long prompt would make plain decoding look slow."""
    clock, proposer = [0.0], Reading(20)
    speculation = Speculation(proposer, clock=lambda: clock[0])
    steps: list[bool] = []
    while len(steps) < 2 * PERIOD:
        asked = proposer.calls
        proposed = speculation.propose([1, 2], room=8)
        reads = proposer.calls > asked and not proposed
        clock[0] += 9.0 if reads else 1.5 if proposed else 1.0
        speculation.note(len(proposed), 1)
        steps.append(bool(proposed))
    assert np.mean(steps[PERIOD:]) < 0.2


def test_a_draft_leaves_out_what_only_one_of_two_vocabularies_has(decoder_graph: Any) -> None:
    """Tables of one tokenizer are filled up to different sizes; a number beyond its own fails a graph."""
    path, graph = decoder_graph
    decoder = Decoder(open_session(path, threads=1), graph, 1)
    larger = DraftModel(decoder, vocab_size=graph.vocab_size + 8)
    assert larger.propose([1, graph.vocab_size + 3], 4) == []
    smaller = DraftModel(decoder, vocab_size=10)
    proposals = [smaller.propose([token, 1], 4) for token in range(10)]
    assert {token for tokens in proposals for token in tokens} <= set(range(10))
    assert smaller.propose([1, 10], 4) == []


class Reading:
    """Proposes the same again and again, once it has been asked so many times."""

    def __init__(self, calls: int) -> None:
        self.calls, self.until = 0, calls

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        self.calls += 1
        return [1] * count if self.calls > self.until else []


class Always:
    """Proposes the same again and again."""

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        return [1] * count


def spoke(speculative: float, plain: float, produced: int, slow_at_first: int = 0) -> list[bool]:
    """Which steps speculate, where steps take so many seconds by a clock of our own."""
    clock = [0.0]
    speculation = Speculation(Always(), clock=lambda: clock[0])
    steps: list[bool] = []
    while len(steps) < 4 * PERIOD:
        proposed = speculation.propose([1, 2], room=8)
        slow = 3.0 if proposed and sum(steps) < slow_at_first else 0.0
        clock[0] += slow + (speculative if proposed else plain)
        speculation.note(len(proposed), produced if proposed else 1)
        steps.append(bool(proposed))
    return steps


def test_speculation_goes_on_where_it_pays_and_stops_where_it_does_not() -> None:
    late = slice(2 * PERIOD, None)
    trials = TRIAL_STEPS / PERIOD
    assert np.mean(spoke(speculative=1.5, plain=1.0, produced=3)[late]) == 1 - trials
    assert np.mean(spoke(speculative=1.5, plain=1.0, produced=1)[late]) == trials


def test_slow_first_steps_do_not_end_speculation_that_pays() -> None:
    steps = spoke(speculative=1.5, plain=1.0, produced=3, slow_at_first=TRIAL_STEPS)
    assert np.mean(steps[PERIOD:]) > 0.9


def test_proposals_are_counted_and_follow_their_success() -> None:
    speculation = Speculation(Always())
    lengths = []
    for produced in (1, 2, 3, 5):
        proposed = speculation.propose([1, 2], room=8)
        lengths.append(len(proposed))
        speculation.note(len(proposed), min(produced, len(proposed) + 1))
    assert lengths == [4, 1, 2, 4]
    assert (speculation.draft_tokens, speculation.accepted_tokens) == (11, 0 + 1 + 2 + 4)
    assert speculation.propose([1, 2], room=0) == []
