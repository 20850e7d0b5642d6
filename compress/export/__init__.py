"""PyTorch to ONNX, feed-forward and KV-cached, and the check that nothing changed on the way."""
