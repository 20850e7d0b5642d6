"""Renamed tokens, and the answers that counting gives."""

import numpy as np
import torch

from models.datasets import IGNORED, Split
from models.datasets.subwords import END_ID, PAD_ID
from models.zoo.names import LONGEST, counted_answers, renamed, taken_over

VOCABULARY = 50


def batch() -> dict[str, torch.Tensor]:
    """Two sources, of five and of three tokens, and answers with one of them each."""
    return {
        "input_ids": torch.tensor([[10, 11, 12, 10, END_ID], [20, 21, END_ID, PAD_ID, PAD_ID]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "decoder_input_ids": torch.tensor([[PAD_ID, 10, 30], [PAD_ID, 21, PAD_ID]]),
        "targets": torch.tensor([[10, 30, END_ID], [21, END_ID, IGNORED]]),
    }


def test_a_token_has_one_new_name_wherever_it_stands() -> None:
    torch.manual_seed(0)
    given, changed = batch(), renamed(batch(), VOCABULARY, share=1.0)
    names = changed["input_ids"]
    assert (names != given["input_ids"]).sum() >= 5
    assert names[0, 0] == names[0, 3] == changed["decoder_input_ids"][0, 1] == changed["targets"][0, 0]
    assert names[1, 1] == changed["targets"][1, 0]
    special = given["input_ids"] < 3
    assert torch.equal(names[special], given["input_ids"][special])
    # What no source has, keeps its name, unless a source's token took it: then no one could tell.
    assert changed["targets"][0, 1] == 30
    assert torch.equal(changed["targets"] == IGNORED, given["targets"] == IGNORED)
    assert torch.equal(changed["decoder_input_ids"][:, 1], changed["targets"][:, 0])


def test_nothing_is_renamed_where_nothing_is_chosen() -> None:
    given, changed = batch(), renamed(batch(), VOCABULARY, share=0.0)
    assert all(torch.equal(changed[name], given[name]) for name in given)


def test_counted_answers_are_the_words_worth_saying_once_and_in_order() -> None:
    said = torch.zeros(VOCABULARY, dtype=torch.bool)
    said[[10, 12, END_ID, PAD_ID]] = True
    answers = counted_answers(batch(), said)
    assert answers["targets"].shape == (2, LONGEST + 1)
    assert [row[row != IGNORED].tolist() for row in answers["targets"]] == [[10, 12, END_ID], [END_ID]]
    assert answers["decoder_input_ids"][:, :3].tolist() == [[PAD_ID, 10, 12], [PAD_ID, END_ID, PAD_ID]]


def test_a_share_counts_a_source_once_and_rare_tokens_are_like_each_other() -> None:
    sources = np.array([[10, 10, 11], [10, 12, 11], [13, 12, 11]] * 3)
    answers = np.array([[10, END_ID], [10, END_ID], [11, IGNORED]] * 3)
    shares = taken_over(Split({"input_ids": sources}, answers), VOCABULARY)
    # The rare one, 13, is in three sources and never in an answer; what is in none is like it.
    assert shares[13] == shares[40] == 0
    assert torch.isclose(shares[10], torch.tensor(6 / 8))
    assert torch.isclose(shares[11], torch.tensor(3 / 11))
    assert shares[12] == 0


def test_what_a_batch_meets_is_on_its_device() -> None:
    """On "meta", which every machine has, a tensor of the CPU is as foreign as on a GPU."""
    given = {name: value.to("meta") for name, value in batch().items()}
    changed = renamed(given, VOCABULARY, share=0.5)
    answers = counted_answers(changed, torch.zeros(VOCABULARY, dtype=torch.bool, device="meta"))
    assert {value.device.type for value in (changed | answers).values()} == {"meta"}
