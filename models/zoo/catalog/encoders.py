"""Text encoders, pretrained on the snippets of the standard library and tuned to tell its packages apart.

A bag of words (TF-IDF and logistic regression) reaches 0.68 on these files that it never saw. `bert-sst2`
learns from film reviews alone: of the held-out ones 0.51 are of the larger class, and a bag of words is right
for 0.79.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from models.registry import ModelSpec, Pretraining, TrainingRecipe, register

# A word's vector moves only when the word is there, which is seldom: its rate is higher than the rest's.
_PRETRAINING = TrainingRecipe(
    steps=640,
    batch_size=16,
    learning_rate=1e-3,
    rates=(("word_embeddings", 1e-2),),
    warmup=0.1,
    max_seconds=90.0,
    threads=1,
)
# A step of these pretexts costs twice a masked one's, or more.
_DEARER = replace(_PRETRAINING, steps=240, max_seconds=70.0)
_TUNING = replace(_PRETRAINING, steps=470, max_seconds=80.0)
_DISTILLING = replace(_PRETRAINING, steps=500, learning_rate=5e-4, rates=(), max_seconds=80.0)
_SIZES = {
    "vocab_size": 4096,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
    "initializer_range": 0.05,
}
_TINY = MappingProxyType(
    {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
)


def _encoder(name: str, parameters: int, source: str, pretraining: Pretraining, **changes: Any) -> None:
    spec = ModelSpec(
        name=name,
        family="encoder",
        task="text-classification",
        build="models.zoo.encoders:encoder",
        dataset="packages",
        metric="accuracy",
        floor=0.6,
        training=_TUNING,
        pretraining=pretraining,
        parameters=parameters,
        source=source,
        tiny=_TINY,
    )
    register(replace(spec, **changes))


def _config(design: str, **more: Any) -> Mapping[str, Any]:
    return MappingProxyType({"design": design, **_SIZES, **more})


_encoder(
    "bert",
    1_352_074,
    "Devlin et al., BERT: pre-training of deep bidirectional transformers, arXiv:1810.04805, 2018",
    Pretraining("models.zoo.pretraining:masked_and_next", _PRETRAINING),
    config=_config("Bert"),
)
_encoder(
    "roberta",
    1_352_074,
    "Liu et al., RoBERTa: a robustly optimized BERT pretraining approach, arXiv:1907.11692, 2019",
    Pretraining("models.zoo.pretraining:masked", _PRETRAINING),
    config=_config("Roberta", pad_token_id=0),
)
_encoder(
    "albert",
    494_986,
    "Lan et al., ALBERT: a lite BERT, arXiv:1909.11942, 2019",
    Pretraining("models.zoo.pretraining:masked_and_order", _PRETRAINING),
    config=_config("Albert", embedding_size=64),
)
_encoder(
    "electra",
    1_352_074,
    "Clark et al., ELECTRA: pre-training text encoders as discriminators, arXiv:2003.10555, 2020",
    Pretraining("models.zoo.replaced_tokens:replaced_tokens", _DEARER),
    config=_config("Electra", embedding_size=128),
)
_encoder(
    "xlnet",
    1_401_354,
    "Yang et al., XLNet: generalized autoregressive pretraining, arXiv:1906.08237, 2019",
    Pretraining("models.zoo.xlnet:permuted", _DEARER),
    build="models.zoo.xlnet:classifier",
    config=MappingProxyType(
        {
            "vocab_size": 4096,
            "d_model": 128,
            "n_layer": 4,
            "n_head": 4,
            "d_inner": 512,
            "initializer_range": 0.05,
        }
    ),
    tiny=MappingProxyType({"d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 32}),
)
_encoder(
    "distilbert",
    955_274,
    "Sanh et al., DistilBERT, a distilled version of BERT, arXiv:1910.01108, 2019",
    Pretraining("models.zoo.distilbert:taught", _DISTILLING, teacher="bert"),
    build="models.zoo.distilbert:classifier",
    training=replace(_TUNING, steps=150, learning_rate=2e-4, rates=()),
    config=MappingProxyType(
        {
            "vocab_size": 4096,
            "dim": 128,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 512,
            "max_position_embeddings": 128,
        }
    ),
    tiny=MappingProxyType({"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}),
)
register(
    ModelSpec(
        name="bert-sst2",
        family="encoder",
        task="text-classification",
        build="models.zoo.encoders:encoder",
        dataset="sst2",
        metric="accuracy",
        floor=0.72,
        training=TrainingRecipe(
            steps=320,
            batch_size=32,
            learning_rate=5e-4,
            rates=(("word_embeddings", 5e-3),),
            weight_decay=0.05,
            warmup=0.1,
            max_seconds=120.0,
            threads=1,
        ),
        parameters=946_306,
        source="Devlin et al., BERT: pre-training of deep bidirectional transformers, arXiv:1810.04805, 2018",
        config=_config("Bert", classes=2, num_hidden_layers=2, max_position_embeddings=64),
        tiny=_TINY,
    )
)
