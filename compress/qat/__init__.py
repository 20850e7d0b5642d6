"""Quantization-aware training: a torch step that ends as integers, exported as QuantizeLinear and friends."""
