"""The OpenAPI description of every mounted route, beside BentoML's own of the native endpoints.

It describes and checks nothing: bodies are checked by the models that they are described from.
"""
