"""Templates through jinja2: what chat templates use works, what a hostile one tries ends in an error."""

import datetime

import pytest

from edgellm._core import FormatError
from edgellm.chat import render_chat

USER = [{"role": "user", "content": " Hi <you> "}]
TALK = [*USER, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Lights on"}]

LLAMA3 = (
    "{{ bos_token }}{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = '[' ~ loop.length ~ ']' ~ content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>' }}{% endif %}"
)


def test_llama_3_form_renders_as_published():
    text = render_chat(LLAMA3, TALK[:2], bos="<|begin|>")
    assert text == (
        "<|begin|>[2]<|start_header_id|>user<|end_header_id|>\n\nHi <you><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>"
    )


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        (
            "{% set a = namespace(n=0) %}{% for m in messages %}{% set a.n = a.n + 1 %}{% endfor %}{{ a.n }}",
            "3",
        ),
        ("{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.role[0] }}{% endfor %}", "ua"),
        ("{% for m in messages if m.role == 'user' %}{{ loop.index }}{% else %}none{% endfor %}", "12"),
        ("{{ tools | tojson }}{# <tool_call> #}", '[{"type": "function", "function": {"name": "lamp"}}]'),
        (
            "{{ tools[0].function | tojson(indent=1) }}{# <tool_call> #}",
            '{\n "name": "lamp"\n}',
        ),
        ("{{ {'lämp': true} | tojson }}", '{"lämp": true}'),
        ("{{ messages | map(attribute='role') | join('|') }}", "user|assistant|user"),
        ("{{ messages | selectattr('role', 'equalto', 'assistant') | list | length }}", "1"),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('a') }}{{ f(3) }}", "<a><3>"),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}", "Yes?"),
        ("{{ messages[0].content.strip().split(' ')[0].replace('H', 'J') }}", "Ji"),
        ("{{ 'a,b'.split(',') | join('-') }}{{ ['x'] * 2 }}{{ '%s' % 7 }}{{ 7 % 4 }}", "a-b['x', 'x']73"),
        (
            "{% for i in range(1, 7, 2) %}{{ i }}{% endfor %}{{ undefined_thing }}{{ none is none }}",
            "135True",
        ),
        ("{{ strftime_now('%d') if strftime_now is defined else 'no date' }}", "no date"),
    ],
)
def test_what_chat_templates_use_works(template, wanted):
    tools = [{"type": "function", "function": {"name": "lamp"}}] if "<tool_call>" in template else None
    assert render_chat(template, TALK, tools=tools) == wanted


def test_date_is_shown_where_given():
    day = datetime.date(2025, 1, 2)
    assert render_chat("{{ strftime_now('%d %b') }}", USER, today=day) == "02 Jan"


def test_refusal_of_a_template_is_a_value_error():
    with pytest.raises(ValueError, match="roles must alternate"):
        render_chat("{{ raise_exception('roles must alternate') }}", USER)


DEEP = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
HOSTILE = [
    "{% for",
    "{{ 1 / 0 }}",
    "{{ messages.nope.nope }}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}",
    "{% for a in 'x' * 9999 %}{% for b in 'x' * 9999 %}{% endfor %}{% endfor %}",
    "{% for a in range(10 ** 9) %}{% endfor %}",
    "{{ 'a' * 10 ** 9 }}",
    "{{ 9 ** 99999999 }}",
    "{{ [0] * 99999999 }}",
    "{{ 'a'.ljust(999999999) }}",
    "{{ 'a' | center(999999999) }}",
    "{{ 'a' | indent(999999999) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '{:999999999}'.format(1) }}",
    DEEP + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    DEEP + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    DEEP + "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    DEEP + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    DEEP + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    DEEP + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | string | length }}",
    DEEP + "{% set ns.x = ns.x.replace('a', 'aa' * 99) %}{% endfor %}",
    DEEP + "{% set ns.x = ns.x | replace('b', ns.x) %}{% endfor %}",
    DEEP + "{% set ns.x = ns.x.join([ns.x, ns.x, ns.x]) %}{% endfor %}",
    "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='system') }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum(n=99999) }}",
    "{% include 'secret' %}",
    "{% import 'os' as os %}",
    "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "{{ " + "[" * 90 + "]" * 90 + " }}" + "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "x" * (1 << 18),
]


@pytest.mark.parametrize("template", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_template_ends_in_a_format_error(template):
    with pytest.raises(FormatError, match="chat template"):
        render_chat(template, USER)


def test_template_cannot_change_the_callers_messages():
    messages = [{"role": "user", "content": "a", "extra": {"k": [1]}}]
    with pytest.raises(FormatError):
        render_chat("{{ messages[0].extra.k.append(2) }}", messages)
    assert messages == [{"role": "user", "content": "a", "extra": {"k": [1]}}]
