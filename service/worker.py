"""One of several processes that answer on an inherited socket: `python -m service.worker FILE_DESCRIPTOR`.

The supervisor starts it; everything else it is told comes by the environment. On standard output it says
once what it serves, as a line of JSON.
"""

import json
import socket
import sys
from collections.abc import Sequence
from typing import Any

from runtime.errors import ModelpressError
from runtime.manifest import DecoderGraph, Manifest
from service import server
from service.settings import Settings


def main() -> None:
    """Serve until a signal; a mistake in the settings or a bundle is one line and exit code 2."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    try:
        server.run(listener, Settings.from_environment(), _announce)
    except ModelpressError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _announce(manifests: Sequence[Manifest]) -> None:
    print(json.dumps([described(manifest) for manifest in manifests]), flush=True)


def described(manifest: Manifest) -> dict[str, Any]:
    """A model, in a line for programs; of several graphs, from how many tokens on a call runs on each."""
    line: dict[str, Any] = {
        "name": manifest.tag,
        "version": manifest.version,
        "task": manifest.task,
        "processing": manifest.processing.kind,
    }
    if isinstance(graph := manifest.graph, DecoderGraph) and graph.phases:
        line["graphs"] = {graph.file: 1} | {phase.file: phase.from_tokens for phase in graph.phases}
    return line


if __name__ == "__main__":
    main()
