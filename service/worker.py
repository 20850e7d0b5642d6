"""One of several processes that answer on an inherited socket: `python -m service.worker FILE_DESCRIPTOR`.

The supervisor starts it; everything else it is told comes by the environment. On standard output it says
once what it serves, as a line of JSON.
"""

import json
import socket
import sys
from collections.abc import Sequence

from runtime.errors import ModelpressError
from runtime.manifest import Manifest
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


def described(manifest: Manifest) -> dict[str, str]:
    """A model, in a line for programs."""
    return {
        "name": manifest.tag,
        "version": manifest.version,
        "task": manifest.task,
        "processing": manifest.processing.kind,
    }


if __name__ == "__main__":
    main()
