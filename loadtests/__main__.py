"""`python -m loadtests`: what `modelpress loadtest` is, and how it starts its other generators."""

from loadtests.cli import app

app(prog_name="modelpress loadtest")
