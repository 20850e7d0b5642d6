"""Quantization of the exported graph: int8 dynamic and static, 4-bit weight-only, half-precision storage."""
