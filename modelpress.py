"""The command line's door: one Typer group whose commands live in the packages that do the work.

Each package's own `cli.py` is imported only when one of its commands is called, so `modelpress --help`
answers at once and `modelpress serve` never imports torch. A user's mistake ends here, in one line.
"""

import errno
import sys
from importlib import import_module
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from runtime.errors import ModelpressError

# Command -> its module, and the line that `--help` shows without importing it.
COMMANDS = {
    "demo": ("compress.cli", "The whole way once: train, compress, serve, load-test."),
    "compress": ("compress.cli", "Run recipes: compress, measure against the original."),
    "list": ("compress.cli", "List the published bundles with what was measured on them."),
    "show": ("compress.cli", "Show what one bundle is and where it comes from."),
    "report": ("compress.cli", "Write an HTML page that compares bundles."),
    "train": ("models.cli", "Train a member of the zoo to its floor."),
    "zoo": ("models.cli", "List the zoo, or show one member."),
    "serve": ("service.cli", "Serve bundles over REST."),
    "key": ("service.cli", "Make an API key for a server."),
    "loadtest": ("loadtests.cli", "Measure a deployment over HTTP."),
}
EXTRAS = {"torch", "transformers", "onnx", "onnxscript", "sklearn", "safetensors", "peft", "bitsandbytes"}
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOTDIR}
UNUSABLE = {errno.ENAMETOOLONG, errno.ELOOP}


class _Lazy(TyperGroup):
    """Lists its commands by name alone, and loads the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        module, _ = COMMANDS[str(name)]
        found = get_command(import_module(module).app)
        return name, getattr(found, "commands", {}).get(name, found), rest


app = typer.Typer(
    cls=_Lazy,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # importing rich takes longer than everything else that --help does
    pretty_exceptions_enable=False,
)
for _name, (_, _help) in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)


@app.callback()
def _root() -> None:
    """Make a model small, prove what that did to it, and serve it."""


def main() -> NoReturn:
    """The console script: runs a command, and turns expected failures into one line and an exit code."""
    try:
        app()
    except ModelpressError as error:
        _fail(str(error), getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        _fail("interrupted; what was finished is kept: the same command goes on from there", 130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        _fail(f"this command needs {error.name}; run pip install 'modelpress[compress]'", 2)
    except OSError as error:
        if error.errno in UNUSABLE:
            _fail(f"{error.filename or 'a path'}: no place on this disk: {error.strerror}; give another", 2)
        if error.errno not in UNWRITABLE:
            raise
        # Of a copy or a renaming, the second is the one that is written.
        place = error.filename2 or error.filename or "the output"
        _fail(f"{place}: cannot be written: {error.strerror}; free some space or choose another place", 2)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
