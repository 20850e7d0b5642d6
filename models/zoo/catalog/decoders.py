"""Decoder-only language models, on the Python standard library's source."""

from dataclasses import replace
from types import MappingProxyType

from models.registry import ModelSpec, TrainingRecipe, register

# Tokens a step: 4 windows of 256, cut into rows of 128 at first. The embedding's entries are near 1, the
# head's far below (see `models.zoo.initialisation`), and the rates go with that.
_GPT_MINI = TrainingRecipe(
    steps=560,
    batch_size=4,
    learning_rate=5e-3,
    rates=(("embed_tokens", 1e-2), ("lm_head", 2e-3), ("norm", 1e-2)),
    weight_decay=0.0,
    warmup=0.03,
    sequence_lengths=((0.0, 128), (0.6, 256)),
)
# The same start and the same rates by part; biases, which gpt-mini has not, go with the matrices.
_GPT = replace(
    _GPT_MINI,
    learning_rate=3e-3,
    rates=(("wte", 1e-2), ("lm_head", 2e-3), ("ln_", 1e-2)),
)

register(
    ModelSpec(
        name="gpt",
        family="decoder",
        task="text-generation",
        build="models.zoo.gpt2:gpt2",
        initialise="models.zoo.gpt2:bigram_gpt2",
        dataset="stdlib",
        metric="perplexity",
        floor="bigram",
        training=replace(_GPT, steps=400, max_seconds=140.0),
        parameters=4_532_480,
        source="Radford et al., Language models are unsupervised multitask learners, 2019",
        config=MappingProxyType(
            {
                "vocab_size": 4096,
                "n_embd": 256,
                "n_layer": 3,
                "n_head": 4,
                "n_positions": 256,
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
                "tie_word_embeddings": False,
                "bos_token_id": 0,
                "eos_token_id": 0,
                "use_cache": False,
            }
        ),
        tiny=MappingProxyType({"n_embd": 32, "n_layer": 1}),
    )
)
register(
    ModelSpec(
        name="gpt-mini",
        family="decoder",
        task="text-generation",
        build="models.zoo.decoders:llama",
        initialise="models.zoo.initialisation:bigram_llama",
        dataset="stdlib",
        metric="perplexity",
        floor="bigram",
        full_floor="trigram",
        training=replace(_GPT_MINI, steps=480, max_seconds=140.0),
        full=replace(_GPT_MINI, steps=3600, max_seconds=960.0),
        parameters=4_163_328,
        source="Touvron et al., LLaMA: open and efficient foundation language models, arXiv:2302.13971, 2023",
        config=MappingProxyType(
            {
                "vocab_size": 4096,
                "hidden_size": 256,
                "intermediate_size": 640,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 256,
                "tie_word_embeddings": False,
                "bos_token_id": 0,
                "eos_token_id": 0,
                "use_cache": False,
            }
        ),
        tiny=MappingProxyType({"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}),
    )
)
