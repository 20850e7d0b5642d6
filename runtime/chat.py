"""A conversation as one prompt, by the model's own chat template: Jinja, as Hugging Face tokenizers have it.

The template comes with the bundle, so it is rendered in Jinja's sandbox: it sees the messages and no more.
Its loops and macros take a bounded number of turns, so that it cannot hold a thread for ever; the memory that
it takes is not bounded. It does not tokenize. A model without a template gets a plain one, which a model that
was never trained to chat continues most naturally.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.errors import InputError

PLAIN = """\
{% for message in messages %}
{{ message.role }}: {{ message.content }}
{% endfor %}
{% if add_generation_prompt %}
assistant:
{%- endif %}"""
# Turns of a template's loops and macros together: more than any conversation's, and done within a second.
MAX_TURNS = 100_000
_TURN = "modelpress_turn"
# Where a model that goes on with the plain template's dialogue would speak for the user.
PLAIN_STOP = ("\nuser:", "\nsystem:")


class ChatTemplate:
    """Compiled once. Raises InputError for a template that Jinja cannot read."""

    def __init__(self, source: str | None) -> None:
        self.stop = () if source else PLAIN_STOP
        try:
            self._template = _compile(source or PLAIN)
        except Exception as error:  # Jinja computes what is constant, and that may raise anything
            raise InputError(
                f"the model's chat template is not readable ({error}); send a plain prompt instead"
            ) from None

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """The prompt for `messages` ({"role", "content"} each), ending where the assistant is to speak.

        Raises InputError where the template refuses the conversation, as many refuse a role or an order.
        """
        try:
            return self._template.render(
                {"messages": messages, "add_generation_prompt": add_generation_prompt, _TURN: _counter()}
            )
        except Exception as error:  # a template is a program of the model's
            raise InputError(f"the model's chat template refuses these messages: {error}") from None


def _compile(source: str) -> Template:
    """As transformers does it: the same whitespace rules, filters and globals."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    tree = environment.parse(source)
    for loop in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
        turn = nodes.Call(nodes.Name(_TURN, "load"), [], [], None, None)
        loop.body.insert(0, nodes.ExprStmt(turn).set_lineno(loop.lineno))  # type: ignore[attr-defined]
    tree.set_environment(environment)
    return environment.from_string(tree)


def _counter() -> Callable[[], None]:
    """Counts the turns of one rendering. Raises TemplateError at one too many."""
    turns = count(1)

    def turn() -> None:
        if next(turns) > MAX_TURNS:
            raise TemplateError(f"it takes more than {MAX_TURNS:,} turns")

    return turn


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    # Jinja's own filter escapes for HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(format: str) -> str:
    return datetime.now().strftime(format)
