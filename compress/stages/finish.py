"""A graph as it ships: a decoder's large embedding is read from its file, and not held twice."""

from pathlib import Path

from compress.artifact import GraphArtifact
from compress.description import Description
from compress.step import Figures


def make(folder: Path, graph: Path) -> Figures:
    """Take the embedding out of the graph in the folder `graph`; "outside" says whether there was one."""
    from compress.embedding import take_out

    after = take_out(GraphArtifact.load(graph), folder)
    if after:
        after.save()
        about = Description.load(graph)
        about.save(folder, about.files_in(graph))
    return {"outside": after is not None}
