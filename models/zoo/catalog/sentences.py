"""Sentence embeddings, judged by human ratings of pairs (STS 2015).

There the cosine of counted words has a rank correlation of 0.556 with the ratings, and of words weighed by
how rare they are (TF-IDF) 0.701; random vectors for pieces of words, added up, have 0.691.
"""

from types import MappingProxyType

from models.registry import ModelSpec, TrainingRecipe, register

register(
    ModelSpec(
        name="simcse",
        family="sentence embeddings",
        task="embedding",
        build="models.zoo.simcse:sentence_encoder",
        objective="models.zoo.simcse:contrastive_loss",
        dataset="sentences",
        metric="spearman",
        floor=0.72,
        training=TrainingRecipe(
            steps=150,
            batch_size=128,
            learning_rate=3e-3,
            rates=(("importance", 3e-2),),
            max_seconds=100.0,
            threads=1,
        ),
        parameters=1_316_352,
        source="Gao et al., SimCSE: simple contrastive learning of sentence embeddings, arXiv:2104.08821",
        outputs=("hidden",),
        tiny=MappingProxyType({"width": 16, "heads": 2}),
    )
)
