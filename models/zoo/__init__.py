"""The zoo: networks (one file a family or paper), and the catalogue that declares its members.

Importing this registers every member and loads no torch. Adding one is a network beside this file and a
`register` in its family's file of `models/zoo/catalog/`; nothing else changes.
"""

from models.zoo.catalog import (
    contextual,
    convolutional,
    decoders,
    detection,
    encoder_decoders,
    encoders,
    generative,
    graphs,
    multimodal,
    readers,
    recurrent,
    segmentation,
    sentences,
    vision_transformers,
    word_vectors,
)

__all__ = [
    "contextual",
    "convolutional",
    "decoders",
    "detection",
    "encoder_decoders",
    "encoders",
    "generative",
    "graphs",
    "multimodal",
    "readers",
    "recurrent",
    "segmentation",
    "sentences",
    "vision_transformers",
    "word_vectors",
]
