from typing import Any

import numpy as np
import pytest
import torch

from models.datasets.encoding import token_windows
from models.evaluation import evaluate, torch_predict
from models.ngram import fit
from models.zoo.decoders import llama
from models.zoo.gpt2 import bigram_gpt2, gpt2
from models.zoo.initialisation import bigram_llama

VOCABULARY = 40
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 32,
    "tie_word_embeddings": False,
}


@pytest.mark.parametrize(
    ("build", "config", "initialise"), [(llama, LLAMA, bigram_llama), (gpt2, GPT2, bigram_gpt2)]
)
def test_a_fresh_decoder_predicts_about_as_well_as_a_bigram_model(
    build: Any, config: dict[str, Any], initialise: Any
) -> None:
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.full(VOCABULARY, 0.05), VOCABULARY)
    tokens = [0]
    for _ in range(6000):
        tokens.append(int(rng.choice(VOCABULARY, p=transitions[tokens[-1]])))
    stream = np.array(tokens)
    split = token_windows(stream, 32)
    torch.manual_seed(0)
    module = build(**config)
    predict = torch_predict(module.eval(), ("input_ids",), ("logits",))
    before = evaluate(predict, split, "perplexity", 32).value()
    initialise(module, split)
    after = evaluate(predict, split, "perplexity", 32).value()
    unigram, bigram = (fit(stream, order, VOCABULARY).perplexity(stream) for order in (1, 2))
    assert after < 1.5 * bigram < unigram < before
