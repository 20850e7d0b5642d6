"""What can be compressed: the zoo and the other sources of models, their data, training and judging.

Imports torch, so nothing that serves imports this package. It does not know how a model is compressed or
shipped. `registry`, `datasets` and the fingerprints of `sources` load without torch, so that listing models
and finding a cached stage stay fast.
"""
