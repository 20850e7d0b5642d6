"""LoRA: a few low-rank matrices learn beside frozen weights, and are merged or served beside them."""
