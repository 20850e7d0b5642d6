"""Plain ASGI middleware around everything the service answers, BentoML's own endpoints included."""
