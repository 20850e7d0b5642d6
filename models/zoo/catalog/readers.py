"""Encoders that answer for each token of a text, each trained to a task of its own.

Of the held-out pieces of `code-tokens`, the commonest kind of each piece is right for 0.59, and the commonest
of each piece after the one before it for 0.69. To the held-out `questions`, the commonest answer to each kind
is right for 0.16.
"""

from dataclasses import replace
from types import MappingProxyType

from models.registry import ModelSpec, TrainingRecipe, register

# Masking first, at this rate, cost more than it gave (docs/log.md): labels say more of each token.
_TRAINING = TrainingRecipe(
    steps=350, batch_size=16, learning_rate=3e-3, warmup=0.1, max_seconds=130.0, threads=1
)

_SIZES = {
    "vocab_size": 4096,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
    "initializer_range": 0.05,
}
_TINY = MappingProxyType(
    {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
)

register(
    ModelSpec(
        name="bert-tokens",
        family="encoder",
        task="token-classification",
        build="models.zoo.token_encoders:tagger",
        initialise="models.zoo.token_encoders:sinusoidal_start",
        dataset="code-tokens",
        metric="token-accuracy",
        floor=0.8,
        training=_TRAINING,
        parameters=939_018,
        source="Devlin et al., BERT: pre-training of deep bidirectional transformers, arXiv:1810.04805, 2018",
        config=MappingProxyType({"design": "Bert", **_SIZES}),
        tiny=_TINY,
    )
)

register(
    ModelSpec(
        name="bert-span",
        family="encoder",
        task="question-answering",
        build="models.zoo.spans:reader",
        initialise="models.zoo.token_encoders:sinusoidal_start",
        objective="models.zoo.spans:ends",
        dataset="questions",
        metric="exact-match",
        also=("span-f1",),
        floor=0.25,
        training=replace(_TRAINING, steps=600),
        parameters=937_986,
        source="Devlin et al., BERT: pre-training of deep bidirectional transformers, arXiv:1810.04805, 2018",
        config=MappingProxyType(_SIZES),
        tiny=_TINY,
    )
)
