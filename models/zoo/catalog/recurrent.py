"""Recurrent networks that tell the standard library's packages apart, and one that says what comes next.

A bag of words (TF-IDF and logistic regression) reaches 0.68 on these files that it never saw. The language
model has the tokens and the floor of `gpt` and `gpt-mini`: it must get below an interpolated bigram model.
"""

from types import MappingProxyType

from models.registry import ModelSpec, TrainingRecipe, register

# A word's vector moves only when the word is there, which is seldom: its rate is higher than the rest's.
_RECIPE = TrainingRecipe(
    steps=500,
    batch_size=32,
    learning_rate=5e-3,
    rates=(("embedding", 2e-2),),
    max_seconds=120.0,
    threads=1,
)


def _recurrent(name: str, parameters: int, source: str) -> None:
    register(
        ModelSpec(
            name=name,
            family="recurrent",
            task="text-classification",
            build="models.zoo.recurrent:recurrent",
            dataset="packages",
            metric="accuracy",
            floor=0.6,
            training=_RECIPE,
            parameters=parameters,
            source=source,
            config=MappingProxyType({"cell": name}),
            tiny=MappingProxyType({"embedding": 32, "hidden": 8}),
        )
    )


_recurrent("rnn", 592_906, "Elman, Finding structure in time, 1990")
_recurrent("lstm", 791_050, "Hochreiter and Schmidhuber, Long short-term memory, 1997")
_recurrent("gru", 725_002, "Cho et al., Learning phrase representations, arXiv:1406.1078, 2014")
register(
    ModelSpec(
        name="lstm-lm",
        family="recurrent",
        task="next-token",
        build="models.zoo.recurrent_language:lstm_language_model",
        initialise="models.zoo.recurrent_language:bigram_lstm",
        dataset="stdlib-pieces",
        metric="perplexity",
        floor="bigram",
        # The embedding's entries are near 1 and the head's far below, as in `gpt-mini`, and so are the rates.
        training=TrainingRecipe(
            steps=600,
            batch_size=16,
            learning_rate=5e-3,
            rates=(("embed_tokens", 1e-2), ("lm_head", 2e-3)),
            weight_decay=0.0,
            warmup=0.03,
            sequence_lengths=((0.0, 64), (0.6, 128)),
            max_seconds=140.0,
            threads=1,
        ),
        parameters=2_689_024,
        source="Zaremba et al., Recurrent neural network regularization, arXiv:1409.2329, 2014",
        tiny=MappingProxyType({"width": 16, "hidden": 8}),
    )
)
