"""What word vectors compute, on vocabularies of a few words."""

import numpy as np
import pytest
import torch

from models.datasets import IGNORED, Split
from models.zoo.word_vectors import (
    Glove,
    Lookup,
    Predictive,
    SubwordMean,
    cbow_loss,
    glove_loss,
    initialise_noise,
    initialise_subwords,
    skip_gram_loss,
)


def test_a_word_is_the_mean_of_its_pieces_and_padding_is_none() -> None:
    words = SubwordMean(vocabulary=2, width=3, buckets=4, most=3)
    weights = words.vectors.weight.detach()
    vectors = words(torch.tensor([[6, 1, 0], [2, 0, 0]]))
    torch.testing.assert_close(vectors[0], (weights[6] + weights[1]) / 2)
    torch.testing.assert_close(vectors[1], weights[2])


def test_the_table_is_made_of_the_pieces_that_training_saw() -> None:
    module = Predictive(SubwordMean(vocabulary=2, width=3, buckets=4, most=3), vocabulary=2, width=3)
    weights = module.words.vectors.weight.detach()
    torch.testing.assert_close(module.words.table(), weights[5:7])
    pieces = np.array([[6, 1, 0], [5, 2, 3], [6, 1, 0]])
    initialise_subwords(module, Split({"subword_ids": pieces}, np.array([[1], [0], [1]])))
    torch.testing.assert_close(module.words.table()[0], weights[[5, 2, 3]].mean(0))
    torch.testing.assert_close(module.words.table()[1], weights[[6, 1]].mean(0))


def test_noise_is_by_frequency_to_the_power_of_three_quarters() -> None:
    module = Predictive(Lookup(3, 2), vocabulary=3, width=2)
    targets = np.array([[0] * 8 + [1] * 8, [0] * 8 + [IGNORED] * 8])
    initialise_noise(module, Split({"word_ids": np.array([1, 2])}, targets))
    torch.testing.assert_close(module.noise, torch.tensor([16.0, 8.0, 0.0]) ** 0.75)


def test_what_is_past_a_files_end_changes_no_loss() -> None:
    module = Predictive(Lookup(4, 2), vocabulary=4, width=2)
    losses = []
    for targets in ([[1, 2]], [[IGNORED, 1, 2, IGNORED]]):
        batch = {"word_ids": torch.tensor([0]), "targets": torch.tensor(targets)}
        for loss in (skip_gram_loss, cbow_loss):
            torch.manual_seed(0)
            losses.append(float(loss(module, batch).detach()))
    assert losses[:2] == pytest.approx(losses[2:])


def test_glove_fits_the_logarithms_of_the_counts_that_are_not_zero() -> None:
    module = Glove(vocabulary=2, width=2)
    with torch.no_grad():
        for embedding in (module.main, module.context):
            embedding.weight.zero_()
        module.main_bias.copy_(torch.tensor([2.0, 7.0]))
    counts = torch.tensor([[float(np.exp(2)), 0.0]])
    assert float(glove_loss(module, {"word_ids": torch.tensor([0]), "targets": counts}).detach()) < 1e-9
    assert float(glove_loss(module, {"word_ids": torch.tensor([1]), "targets": counts}).detach()) > 1


def test_a_word_is_most_similar_to_itself() -> None:
    for module in (
        Predictive(Lookup(5, 4), vocabulary=5, width=4),
        Glove(vocabulary=5, width=4),
        Predictive(SubwordMean(5, 4, buckets=3, most=2), vocabulary=5, width=4),
    ):
        first = (
            module.words.first
            if isinstance(module, Predictive) and isinstance(module.words, SubwordMean)
            else 0
        )
        ids = torch.arange(5) + first
        similarity, vector = module(torch.stack([ids, ids * 0], 1) if first else ids)
        assert similarity.argmax(1).tolist() == [0, 1, 2, 3, 4]
        torch.testing.assert_close(similarity.diagonal(), torch.ones(5))
        assert vector.shape == (5, 4)
