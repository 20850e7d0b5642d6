"""Encoder-decoders: a source in, an answer of its own words out.

English to German (`multi30k`) without a network, by BLEU on held-out pairs: the translation of the nearest
known caption 0.10, each word's likeliest translation in the source's order 0.13. Names from docstrings
(`docstrings`), by ROUGE-L: the best name for all 0.06, the sentence's first two words 0.25, its first five
0.32, those of its words that at least 15% of the training answers to sentences with them have too 0.43.
"""

from dataclasses import replace
from types import MappingProxyType

from models.registry import ModelSpec, Pretraining, TrainingRecipe, register

_SIZES = {
    "vocab_size": 4096,
    "d_model": 128,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 512,
    "decoder_ffn_dim": 512,
    # Longer than any source or answer.
    "max_position_embeddings": 128,
    "init_std": 0.088,  # d_model to the power of -1/2
    # Not three times through the data: too few for dropout.
    "dropout": 0.0,
}
_TINY = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    # So large that untrained answers are of several tokens, and others to other sources.
    "init_std": 0.4,
}

_TRANSFORMER = ModelSpec(
    name="transformer",
    family="encoder-decoder",
    task="text2text-generation",
    build="models.zoo.encoder_decoders:marian",
    initialise="models.zoo.lexical_start:lexical_start",
    objective="models.zoo.encoder_decoders:smoothed",
    dataset="multi30k",
    metric="bleu",
    also=("rouge-l",),
    floor=0.15,
    training=TrainingRecipe(
        steps=2700,
        batch_size=32,
        learning_rate=2e-3,
        betas=(0.9, 0.98),
        warmup=0.05,
        max_seconds=170.0,
        threads=1,  # two wait for each other where the machine is busy: 29 steps in 122 s
    ),
    parameters=1_482_752,
    source="Vaswani et al., Attention is all you need, arXiv:1706.03762, 2017",
    config=MappingProxyType(_SIZES),
    tiny=MappingProxyType(_TINY),
)
register(_TRANSFORMER)

register(
    replace(
        _TRANSFORMER,
        name="bart",
        build="models.zoo.encoder_decoders:bart",
        parameters=1_483_776,
        source="Lewis et al., BART: denoising sequence-to-sequence pre-training, arXiv:1910.13461, 2019",
    )
)

register(
    replace(
        _TRANSFORMER,
        name="t5",
        build="models.zoo.encoder_decoders:t5",
        # Its embedding's entries are near 1, the others' near an eleventh of that.
        training=replace(_TRANSFORMER.training, rates=(("shared", 2e-2),)),
        parameters=1_443_584,
        source="Raffel et al., Exploring the limits of transfer learning with a unified text-to-text "
        "transformer, arXiv:1910.10683, 2019",
        config=MappingProxyType(
            {
                "vocab_size": 4096,
                "d_model": 128,
                "d_kv": 32,
                "d_ff": 512,
                "num_layers": 2,
                "num_decoder_layers": 2,
                "num_heads": 4,
                "dropout_rate": 0.0,
                "n_positions": 128,
            }
        ),
        tiny=MappingProxyType(
            {
                "d_model": 32,
                "d_kv": 16,
                "d_ff": 32,
                "num_layers": 1,
                "num_decoder_layers": 1,
                "num_heads": 2,
                "initializer_factor": 1.2,  # as the others' init_std
            }
        ),
    )
)

register(
    replace(
        _TRANSFORMER,
        name="bart-names",
        build="models.zoo.encoder_decoders:bart",
        objective="models.zoo.names:renaming",
        dataset="docstrings",
        metric="rouge-l",
        also=(),
        # Above the sentence's first five words.
        floor=0.33,
        pretraining=Pretraining(
            "models.zoo.names:counted_words",
            replace(_TRANSFORMER.training, steps=1000, batch_size=64, max_seconds=125.0),
        ),
        training=replace(
            _TRANSFORMER.training, steps=200, batch_size=64, learning_rate=5e-4, max_seconds=45.0
        ),
        parameters=1_482_752,
        source="Lewis et al., BART: denoising sequence-to-sequence pre-training, arXiv:1910.13461, 2019",
        config=MappingProxyType(
            {**_SIZES, "vocab_size": 6144, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "dropout": 0.1}
        ),
    )
)
