"""The REST service over `runtime`: one BentoML service, one mounted ASGI app, several dialects.

It knows nothing of training and compressing and never imports torch: all it needs is in the bundle. BentoML
gives the packaging, the model store, workers, probes and the generated API page; admission, streaming,
cancellation, error shapes and metric labels are this package's own.
"""
