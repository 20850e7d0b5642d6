import numpy as np
import torch

from models.datasets.encoding import token_windows
from models.evaluation import evaluate, torch_predict
from models.ngram import fit
from models.zoo.decoders import llama
from models.zoo.initialisation import bigram_llama

VOCABULARY = 40


def test_a_fresh_decoder_predicts_about_as_well_as_a_bigram_model() -> None:
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.full(VOCABULARY, 0.05), VOCABULARY)
    tokens = [0]
    for _ in range(6000):
        tokens.append(int(rng.choice(VOCABULARY, p=transitions[tokens[-1]])))
    stream = np.array(tokens)
    split = token_windows(stream, 32)
    torch.manual_seed(0)
    module = llama(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        tie_word_embeddings=False,
    )
    predict = torch_predict(module.eval(), ("input_ids",), ("logits",))
    before = evaluate(predict, split, "perplexity", 32).value()
    bigram_llama(module, split)
    after = evaluate(predict, split, "perplexity", 32).value()
    unigram, bigram = (fit(stream, order, VOCABULARY).perplexity(stream) for order in (1, 2))
    assert after < 1.5 * bigram < unigram < before
