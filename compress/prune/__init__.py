"""Pruning of single weights, by ratio or by N:M pattern. Shapes stay as they are."""
