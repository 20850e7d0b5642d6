"""Structured pruning with real shrinking: channels, neurons, heads and layers go, and tensors get smaller."""
