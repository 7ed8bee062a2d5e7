#!/usr/bin/env python3
"""Writes tests/fixtures/templates.json: what Jinja, in transformers' setting, makes of the features that chat templates use.

    python3 -m pip install "transformers==5.24.0" jinja2
    python3 scripts/make_template_fixtures.py

The templates are written for this test, one feature after another; none is a vendor's. Format: [[template, messages,
{"tools", "documents", "kwargs", "add_generation_prompt"}, text]].
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

CHATS = [
    [{"role": "user", "content": "Hello there"}],
    [{"role": "user", "content": "a = b\nc"}, {"role": "assistant", "content": "said", "reasoning_content": "thought\n"},
     {"role": "user", "content": "  x  "}],
    [{"role": "system", "content": "S: é \"q\" <b>"}, {"role": "user", "content": "u1"},
     {"role": "assistant", "content": "<think>\nold\n</think>\n\nnew"}, {"role": "user", "content": "u2"},
     {"role": "assistant", "content": "third"}, {"role": "user", "content": "1,2;3"}],
]

TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Tells \"weather\" <now> & later — é", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "enum": ["Rome", "Köln"]}, "days": {"type": "integer", "default": 1.5}},
        "required": ["city"]}}},
    {"type": "function", "function": {"name": "stop", "parameters": {"type": "object", "properties": {}}}},
]
DOCUMENTS = [{"title": "One", "text": "first text"}, {"title": "Two", "text": "second\ntext", "meta": {"page": 3}}]

TEMPLATES = {
    "tools": """{%- if tools %}
{{- 'Tools:\\n' }}
    {%- for tool in tools %}
{{- tool | tojson(indent=4) }}
{{ tool.function.name }}: {{ tool['function'].get('description', 'none') }}
        {%- for name, about in tool.function.parameters.properties.items() %}
 - {{ name }} ({{ about.type }}){% if name in tool.function.parameters.required | default([]) %} needed{% endif %}{% if about.enum is defined %} of {{ about.enum | join('|') }}{% endif %}
        {%- endfor %}
        {%- for name, about in tool.function.parameters.properties | dictsort %} {{ name }}{{ about | tojson }}{% endfor %}
    {%- endfor %}
{%- else %}no tools{% endif %}
{%- if tools is not none and tools is iterable %} {{ tools | length }}{% endif %}
{{ messages[-1].content }}""",
    "documents": """{% for d in documents or [] %}[{{ loop.index }}/{{ loop.length }}] {{ d.title }}: {{ d['text'] | replace('\\n', ' ') }}{{ ' p.' ~ d.meta.page if d.meta is defined }}
{% else %}none
{% endfor %}{{ messages[0]['content'] }}""",
    "thinking": """{%- set ns = namespace(last=messages | length - 1, found=false) %}
{%- for m in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if not ns.found and m.role == 'user' and not (m.content.startswith('<r>') and m.content.endswith('</r>')) %}
        {%- set ns.found = true %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- set content = m.content if m.content is string else '' %}
    {%- if m.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if m.reasoning_content is string %}
            {%- set thought = m.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last or keep_thinking %}
            {{- '<A><think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content + '</A>' }}
        {%- else %}
            {{- '<A>' + content + '</A>' }}
        {%- endif %}
    {%- else %}
        {{- '<' + m.role + '>' + content + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<A>' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- elif enable_thinking | default(true) %}
        {{- '<think>\\n' }}
    {%- endif %}
{%- endif %}""",
    "loops": """{% for m in messages if m.role != 'system' %}{{ loop.first }} {{ loop.last }} {{ loop.revindex }} {{ loop.cycle('odd', 'even') }} {{ loop.previtem.role if loop.previtem is defined else '-' }}{{ loop.nextitem.role if not loop.last else '.' }} {{ loop.changed(m.role) }}
{% if loop.index == 4 %}{% break %}{% endif %}{% if m.role == 'assistant' %}{% continue %}{% endif %}after {{ m.role }}
{% endfor %}{% for a, b in [(1, 'x'), (2, 'y')] %}{{ a }}{{ b }} {% endfor %}{% for n in range(5, 0, -2) %}{{ n }},{% endfor %}{% for k in {'p': 1, 'q': 2} %}{{ k }}{% endfor %}""",
    "blocks": """{% macro item(name, mark='*', after='') %}{{ mark }} {{ name | trim }}{{ after }}{% endmacro %}
{% set body %}
{% for m in messages %}
{{ item(m.content, after='!') }}
{% endfor %}
{% endset %}
{{ body | trim | upper }}
{{ item('a', '-') }}{{ item(mark='#', name=' b ') }}
{% raw %}{{ not this }}{% endraw %}
{#- gone -#}
{% if false %}x{% elif messages | length > 1 %}several{% else %}one{% endif %}
{% filter upper %}shout {{ messages[0].role }}{% endfilter %}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}""",
    "tests": """{{ messages is sequence }} {{ messages is iterable }} {{ messages[0] is mapping }} {{ 'a' is string }} {{ 1 is number }} {{ true is boolean }} {{ 1 is integer }} {{ 1.5 is float }}
{{ none is none }} {{ nothing is defined }} {{ nothing is undefined }} {{ 3 is odd }} {{ 4 is even }} {{ 4 is divisibleby(2) }} {{ 'a' in 'cat' }} {{ 'x' not in ['y'] }} {{ 'role' in messages[0] }}
{{ 1 is true }} {{ true is true }} {{ false is false }} {{ (1 == 1.0) }} {{ 'a' is eq('a') }} {{ 2 is gt(1) }} {{ [] is sequence }} {{ 'AB' is upper }} {{ 'ab' is lower }}
{{ not [] }} {{ not '' }} {{ not 0 }} {{ not {} }} {{ 'x' and 'y' }} {{ '' or 'z' }}""",
    "filters": """{{ messages | map(attribute='role') | list | tojson }} {{ messages | map(attribute='content') | map('upper') | join(', ') }} {{ messages | map(attribute='role') | unique | join('/') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'eq', 'user') | list | length }} {{ [3, 1, 2] | sort | join }} {{ [3, 1, 2] | sort(reverse=true) | first }} {{ [1, 2, 3] | last }}
{{ 'a-b_c' | replace('-', '+') | capitalize }} {{ 'the end' | title }} {{ '  x ' | trim }}| {{ 'abc' | length }} {{ -3 | abs }} {{ 2.567 | round(1) }} {{ '7' | int + 1 }} {{ '2.5' | float }} {{ 5 | string + '!' }}
{{ nothing | default('d') }} {{ '' | default('e', true) }} {{ {'a': 1} | items | list | tojson }} {{ 'l1\\nl2' | indent(4) }} {{ [1, 2, 3, 4, 5] | batch(2) | list | tojson }} {{ 'abc' | reverse }} {{ [1, 2] | max }} {{ [[1, 2], [3]] | tojson }}
{{ {'b': 2, 'a': '<é&"\\n>'} | tojson }} {{ {'b': 2, 'a': [true, none, 1.0]} | tojson(indent=2, sort_keys=true) }} {{ {'k': 'é'} | tojson(ensure_ascii=true) }} {{ {} | tojson }} {{ [] | tojson(indent=2) }} {{ {'a': {}} | tojson(separators=(',', ':')) }}
{{ messages | groupby('role') | map('first') | join(',') }} {{ ['b', 'a', 'B'] | sort | join }} {{ [1, 2, 3] | select('odd') | list }} {{ [0, 1] | reject('eq', 0) | list }}""",
    "methods": """{% set t = messages[-1].content %}{{ t.strip() }}|{{ t.lstrip() }}|{{ t.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a b c'.split(' ', 1) | tojson }}|{{ 'a,b,c'.rsplit(',', 1) | tojson }}|{{ 'a\\nb'.splitlines() | tojson }}
{{ 'abc'.find('c') }} {{ 'abca'.count('a') }} {{ 'abc'.upper() }} {{ 'ABC'.lower() }} {{ 'ab cd'.title() }} {{ 'ab'.capitalize() }} {{ '12'.isdigit() }} {{ 'ab'.isalpha() }} {{ 'a.b.c'.replace('.', '/', 1) }} {{ '-'.join(['a', 'b']) }} {{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'bc')) }}
{{ messages[0].keys() | list | join(' ') }} {{ messages[0].values() | list | length }} {{ messages[0].get('nothing') }} {{ messages[0].get('role', 'x') }} {{ 'tail'[1:] }} {{ 'tail'[-2] }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ 'a' 'b' if false else 'c' ~ 1 ~ none }}""",
    "numbers": """{{ 7 // 2 }} {{ 7 % 3 }} {{ 7 / 2 }} {{ 2 ** 5 }} {{ 1.0 }} {{ 1e3 }} {{ 10 - 3 * 2 }} {{ (1 < 2) and (2 <= 2) }} {{ true }} {{ none }} {{ [1, 'a', none, true] }} {{ {'a': 1, 'b': [2]} }} {{ 'it\\'s' }} {{ ['q\\'s'] }} {{ (1, 2) }} {{ -7 // 2 }} {{ 3.0 * 2 }}""",
    "functions": """{{ strftime_now('%Y') | length }} {{ strftime_now('%d %b %Y') | length }} {{ date_string if date_string is defined else 'no date' }} {{ bos_token }} {{ eos_token }} {% if messages | length > 9 %}{{ raise_exception('too many') }}{% endif %}{{ range(3) | list }} {{ dict(a=1, b='x') | tojson }} {{ namespace(x=1).x }} {{ custom | default('unset') }} {{ loud is defined and loud }} {{ level }}""",
}

OPTIONS = [
    {},
    {"add_generation_prompt": True, "tools": TOOLS, "documents": DOCUMENTS},
    {"add_generation_prompt": True, "kwargs": {"enable_thinking": False, "keep_thinking": True, "loud": True, "level": {"a": [1, None]}, "date_string": "1 May"}},
]


def main():
    rows = []
    for name, source in TEMPLATES.items():
        for chat in CHATS:
            if chat[0]["role"] == "system" and name in ("loops", "documents", "blocks", "filters", "methods", "tools"):
                chat = chat[1:]  # it loses system messages, or spells them otherwise: the server folds them into the user's
            for options in OPTIONS:
                (text,), _ = render_jinja_template(
                    [chat], tools=options.get("tools"), documents=options.get("documents"), chat_template=source,
                    add_generation_prompt=options.get("add_generation_prompt", False), bos_token="<s>", eos_token="</s>",
                    **options.get("kwargs", {}),
                )
                rows.append([name, chat, options, text])
    # The same options give the same text in templates that read none of them: keep one.
    kept, seen = [], set()
    for name, chat, options, text in rows:
        key = (name, json.dumps(chat), text)
        if key not in seen:
            seen.add(key)
            kept.append([name, chat, options, text])
    out = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "templates.json"
    cases = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in kept)
    out.write_text(f'{{"templates":{json.dumps(TEMPLATES, indent=0)},\n"cases":[\n{cases}\n]}}\n')
    print(f"{len(TEMPLATES)} templates, {len(kept)} cases, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
