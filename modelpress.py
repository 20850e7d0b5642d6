"""The command line's door: one Typer app whose sub-commands live in the packages that do the work.

Each package's own `cli.py` is imported only when one of its commands is called, so `modelpress --help`
answers at once and `modelpress serve` never imports torch.
"""


def main() -> None: ...
