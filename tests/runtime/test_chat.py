"""Chat templates: the model's own, the plain one, and what they refuse."""

import pytest

from runtime.chat import ChatTemplate
from runtime.errors import InputError

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
QWEN = """\
{%- for message in messages %}
    {%- if loop.first and messages[0]['role'] != 'system' %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def test_a_models_own_template_is_rendered_as_transformers_renders_it():
    assert ChatTemplate(QWEN).render(TALK) == (
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\nyes?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ChatTemplate(QWEN).stop == ()


def test_without_a_template_there_is_a_plain_one_that_ends_where_the_user_speaks():
    template = ChatTemplate(None)
    assert template.render(TALK) == "user: hi\nassistant: yes?\nassistant:"
    assert template.render(TALK, add_generation_prompt=False) == "user: hi\nassistant: yes?\n"
    assert "\nuser:" in template.stop


def test_values_are_written_as_json_and_not_as_html():
    assert ChatTemplate("{{ messages | tojson }}").render([{"role": "<é>"}]) == '[{"role": "<é>"}]'


@pytest.mark.parametrize(
    "source",
    ["{% if %}", "{{ messages[", "{% endfor %}", "{{ 10 ** 9999 }}", "{{ " + "(" * 5000 + ")" * 5000 + " }}"],
)
def test_a_template_that_cannot_be_read_is_told(source):
    with pytest.raises(InputError, match="not readable"):
        ChatTemplate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('system only first') }}",
        "{{ messages[0].content.x.y }}",
        "{{ messages + 1 }}",
        "{{ '{1}'.format(messages[0].content) }}",
        "{{ messages[0].content.encode('nothing') }}",
        "{{ messages | dictsort }}",
        "{{ 1 // 0 }}",
        "{{ messages.__class__.__mro__ }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ messages.append(1) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = b %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ],
)
def test_what_a_template_refuses_or_may_not_do_is_the_requests_error(source):
    with pytest.raises(InputError, match="refuses these messages"):
        ChatTemplate(source).render(TALK)
