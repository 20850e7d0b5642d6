"""Word vectors, learnt from the standard library's names, comments and docstrings.

A floor is the share of held-out neighbours that a member finds among ten words as frequent; chance is 0.1.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from models.registry import ModelSpec, TrainingRecipe, register
from runtime.manifest import Subwords, WordProcessing

_SUBWORDS = Subwords(longest=4, buckets=8192, most=20)
_PREDICTIVE = TrainingRecipe(
    steps=1000,
    batch_size=1024,
    learning_rate=1e-2,
    betas=(0.9, 0.999),
    weight_decay=0.0,
    clip_norm=10.0,
    precision="float32",
    max_seconds=60.0,
    threads=1,
)


def _words(
    name: str,
    design: str,
    loss: str,
    floor: float,
    parameters: int,
    source: str,
    initialise: str | None = "noise",
    dataset: str = "words",
    processing: WordProcessing | None = None,
    config: Mapping[str, Any] = MappingProxyType({}),
    **recipe: Any,
) -> None:
    register(
        ModelSpec(
            name=name,
            family="word-vectors",
            task="word-vectors",
            build=f"models.zoo.word_vectors:{design}",
            initialise=f"models.zoo.word_vectors:initialise_{initialise}" if initialise else None,
            objective=f"models.zoo.word_vectors:{loss}_loss",
            dataset=dataset,
            metric="neighbour-accuracy",
            floor=floor,
            training=replace(_PREDICTIVE, **recipe),
            parameters=parameters,
            source=source,
            processing=processing,
            # The first is what is judged.
            outputs=("similarity", "vector"),
            config=config,
            tiny=MappingProxyType({"width": 8}),
        )
    )


_MIKOLOV = "Mikolov et al., Distributed representations of words and phrases, arXiv:1310.4546, 2013"
_words("word2vec", "word2vec", "skip_gram", 0.26, 512_000, _MIKOLOV)
_words("word2vec-cbow", "word2vec", "cbow", 0.25, 512_000, _MIKOLOV)
_words(
    "glove",
    "glove",
    "glove",
    0.21,
    520_000,
    "Pennington et al., GloVe: Global vectors for word representation, 2014",
    initialise=None,
    dataset="cooccurrences",
    batch_size=256,
    steps=400,
)
_words(
    "fasttext",
    "fasttext",
    "skip_gram",
    0.21,
    1_036_352,
    "Bojanowski et al., Enriching word vectors with subword information, arXiv:1607.04606, 2016",
    initialise="subwords",
    processing=WordProcessing(subwords=_SUBWORDS),
    learning_rate=2e-2,  # it is spread over the pieces
    steps=500,
    config=MappingProxyType({"buckets": _SUBWORDS.buckets, "most": _SUBWORDS.most}),
)
