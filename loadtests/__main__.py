"""`python -m loadtests`: the same as `modelpress loadtest`, which is how a run starts its other generators."""

from loadtests.cli import app

app(prog_name="modelpress loadtest")
