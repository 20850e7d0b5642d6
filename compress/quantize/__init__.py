"""Quantization of the exported graph: int8 dynamic and static, int4 weight-only, half-precision storage."""
