"""What ships: the bundle format and its execution on onnxruntime.

The ground floor. It knows nothing of training, HTTP or BentoML and never imports torch, so that a serving
image is small and starts in seconds.
"""
