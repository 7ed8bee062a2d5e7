#!/usr/bin/env python3
"""Writes tests/fixtures/text_smollm2.json and text_gemma.json: what transformers makes of strings and chats.

    python3 -m pip install "transformers==5.24.0" "gguf==0.19.0" jinja2
    python3 scripts/make_text_fixtures.py SMOLLM2.gguf GEMMA.gguf

Why these references:
* gemma: transformers 5.24 rebuilds the tokenizer from the GGUF file as it is meant (4.57 did not).
* SmolLM2: transformers 5.24 does not know `tokenizer.ggml.pre = smollm` and leaves out that digits stand alone. The
  model's own tokenizer.json has the steps Digits(individual) and ByteLevel, so they are put in here.
* "parse" is `tokenizer.encode(text)`: texts of control tokens become the tokens.
* "text" is the same with `split_special_tokens=True`: they stay text, user-defined tokens (line breaks, HTML tags of
  gemma) are still found. Checked below: no control token comes out of it. Listed only where it differs from "parse".

Format: {"strings": [[text, ids] or [text, parse ids, text ids]], "chats": [[messages, options, text, ids]],
"dialect": [[template, messages, text]]}; the ids of chats are those of the rendered text with control tokens parsed. Lone surrogates cannot be in JSON and are not tested.
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

SEED = 20240817

CODE = [
    "fn main() {\n    let x: Vec<u32> = vec![1, 2, 3];\n    println!(\"{:?}\", x);\n}\n",
    "def f(a, *args, **kwargs):\n\treturn {k: v for k, v in kwargs.items() if v is not None}\n",
    "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 0x1F); return 0; }\n",
    "SELECT id, COUNT(*) FROM t WHERE a >= 10 AND b LIKE '%x%' GROUP BY id;",
    "const f = async (x) => { await new Promise(r => setTimeout(r, 100)); return `${x}!`; };",
    "public class A<T extends B> implements C { private final int x = 0; /* c */ }",
    "<html><body class=\"x\"><h1>Hi</h1><p>a &amp; b</p></body></html>",
    "for i in $(seq 1 10); do echo \"$i\" | tee -a out.log; done",
    "{\"a\": [1, 2.5e-3, true, null], \"b\": {\"c\": \"d\\u00e9\"}}",
    "\\begin{equation} E = mc^2 \\quad \\forall x \\in \\mathbb{R} \\end{equation}",
    "let rec map f = function [] -> [] | x :: xs -> f x :: map f xs;;",
    "(defun fact (n) (if (<= n 1) 1 (* n (fact (- n 1)))))",
    "    if (a && !b || c == d) {\n        goto end;\n    }\n\n\n",
    "@decorator\nclass X(Base):\n    \"\"\"Doc.\"\"\"\n    y: int = 3  # comment\n",
    "x_1 = foo.bar(baz=__name__, *[i**2 for i in range(10)]) @ y // 3 << 2",
    "- [ ] todo\n- [x] done\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```rust\n```\n",
]

TEXTS = [
    "", " ", "  ", "\n", "\t", "a", "Hello, world!", "It's we'll I'VE they're you'd I'm 'tis rock'n'roll", "don't DON'T don’t",
    "The quick brown fox jumps over the lazy dog.", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
    "Voix ambiguë d’un cœur qui au zéphyr préfère les jattes de kiwis", "El pingüino Wenceslao hizo kilómetros",
    "Съешь же ещё этих мягких французских булок", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία", "עטלף אבק נס דרך מזגן",
    "نص حكيم له سر قاطع", "ऋषियों को सताने वाले दुष्ट राक्षसों", "นายสังฆภัณฑ์ เฮงพิทักษ์ฝั่ง", "다람쥐 헌 쳇바퀴에 타고파",
    "いろはにほへと ちりぬるを", "我能吞下玻璃而不伤身体。", "天地玄黃,宇宙洪荒", "ｆｕｌｌ　ｗｉｄｔｈ　１２３", "Việt Nam tiếng Việt",
    "👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇩🇪🧑🏿‍🚀", "❤️ ☺︎ #️⃣ 1️⃣", "e\u0301 a\u0308\u0323 n\u0303o", "Z̷̧͎a̴̢͝l̸̰͝g̵̣̈́o̶͖̍", "\u202eabc\u202c \u200b\u200d\ufeff",
    "\x00\x01\x02\x04\x06\x07\x08\x0b\x0c\x13\x14\x16\x1b\x1d\x1f\x7f", "a\x04b\x06c", "\x85\xa0\xad\u2028\u2029\u3000",
    "\r\n\r\n\r", "a\r\nb", "½ ² ³ ① Ⅷ ٣ ௧ 一二三", "3.14159 1,000,000 0x1F 1e-10 192.168.0.1 2024-02-29", "1 22 333 4444 55555",
    "  12", " 7", "a1b2c3", "\u2581", "\u2581\u2581x\u2581", "x \u2581 y", "ﷺ ﷽ ﬁ ﬂ", "\U000e0041\U0010ffff\U0001fffe", "\u0378\u0590\uffff",
    "𝕳𝖊𝖑𝖑𝖔 𝟙𝟚𝟛", "𐍈𐌰 𓀀 𠜎𠜱", "<0x0A><0xFF>", "http://example.org/a?b=c&d=%20#e", "a@b.co", "C:\\Users\\x\\", "\"quoted\" ‘single’ «guillemets»",
    "...!!??;;::--__==++**//", "$100 €5 £3 ¥7 ₿1", "©®™ → ⇒ ∑∫√∞ ≠≤≥", "CamelCaseWords snake_case_words kebab-case-words SCREAMING",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ab" * 60, "x" * 200, "lorem ipsum " * 12, "=" * 90, "-" * 33, "é" * 40,
]

CONTROL = {
    "smollm2": ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<file_sep>", "<jupyter_code>", "<empty_output>"],
    "gemma": ["<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<unused0>", "<unused99>", "<unused6241>",
              "<mask>", "[multimodal]", "<start_of_image>", "<table>", "</h1>", "<code>"],
}

CHATS = [
    [("user", "Hello")],
    [("system", "You are terse."), ("user", "Hi")],
    [("system", ""), ("user", "Hi")],
    [("user", "Hi"), ("assistant", "Hello!"), ("user", "What is 2+2?")],
    [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")],
    [("user", "a"), ("user", "b")],
    [("user", "a"), ("system", "mid"), ("user", "b")],
    [("system", "one"), ("system", "two"), ("assistant", "greeting"), ("user", "x")],
    [("user", "call it"), ("tool", "{\"r\": 1}"), ("user", "and?")],
    [("user", "  spaces  \n\n and lines\t\n")],
    [("user", "emoji 👩‍👩‍👧‍👦 日本語 é")],
    [("user", "")],
    [("assistant", "first"), ("user", "then")],
    [("user", "<b>html</b> & {{ jinja }} {% raw %}")],
    [("user", "a"), ("assistant", "open end")],
    [("user", "a"), ("assistant", "with space ")],
    [("system", "s"), ("user", "a"), ("assistant", "")],
]


# What chat templates of today are made of: trimmed blocks, slices, namespaces, macros, Python's methods, JSON.
DIALECT = [
    """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = 'none' %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- "<<SYS>>" + system_message + "<</SYS>>\\n" }}
{% for message in loop_messages %}
    {% if message.role == 'user' and loop.first %}
[INST] {{ message.content }} [/INST]
    {% elif not loop.last %}
 {{ message['content'].strip() }} {{ eos_token }}
    {% else %}
({{ loop.index0 }}/{{ loop.length }}) {{ message.content | upper }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
[GEN]
{% endif %}
""",
    """{%- macro turn(role, text='') -%}
<{{ role }}>{{ text }}</{{ role }}>
{%- endmacro -%}
{%- set ns = namespace(last=-1, count=0) -%}
{%- for m in messages -%}
  {%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
  {%- set ns.count = ns.count + 1 -%}
{%- endfor -%}
{{- ns.last ~ ':' ~ ns.count ~ '\\n' -}}
{%- for m in messages -%}
  {%- if m.content is string and m.content.startswith('a') -%}{{ turn(m.role, m.content.split(' ')[-1]) }}
  {%- elif '=' in m.content -%}{{ turn(m.role, m.content.replace('=', '-').lower().title()) }}
  {%- else -%}{{ turn(m.role) }}{%- endif -%}
  {%- if loop.index == 3 -%}{%- break -%}{%- endif -%}
{%- endfor -%}
""",
    """{% for m in messages if m.role != 'tool' %}{{ m | tojson }}
{% endfor %}{{ messages | length }} {{ messages | map(attribute='role') | join(', ') }} {{ (tools is none) }} {{ tools is defined and tools }}
{{ extra | default('unset') }} {{ [1, 2.0, 'x', none, true] | tojson }} {{ {'b': '<é&>', 'a': [1]} | tojson(indent=2) }}
{{ messages[-1].content[:3] }}|{{ messages[0].content[::-1] }}|{{ '%s-%d' % ('a', 3) if false else 'no' }}|{{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ true }} {{ none }}
{# a comment #}
{%- set x = messages | selectattr('role', 'equalto', 'user') | list -%}
{{ x | length }} {{ (messages | first).role }} {{ (messages | last).role }} {{ 'abc'.rstrip('c') }} {{ ' x '.lstrip() }}|{{ 'a-b'.split('-') | join('+') }}
""",
    """{% generation %}{{ messages[0].content }}{% endgeneration %}
  {%- generation -%}  x  {%- endgeneration %}

end
""",
]


def runs(random_source):
    """Runs of white space, alone, before, after and between words."""
    for unit in (" ", "\n", "\t", "\r\n", " \n", "\n ", "\t "):
        for count in (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 30, 31, 32, 33, 40, 64):
            run = unit * count
            yield random_source.choice((run, run + "x", "x" + run, "x" + run + "y", run + "1", "a" + run + "<h1>"))


def random_texts(source):
    ranges = [
        (0x20, 0x7E), (0x0, 0x1F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x4FF), (0x590, 0x6FF), (0x900, 0xDFF),
        (0x1E00, 0x20CF), (0x2190, 0x27BF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF),
        (0xFE00, 0xFEFF), (0x1F300, 0x1FAFF), (0x10000, 0x100FF), (0xE0000, 0xE01EF), (0x100000, 0x10FFFF),
    ]
    for _ in range(170):
        low, high = source.choice(ranges)
        yield "".join(chr(source.randint(low, high)) for _ in range(source.randint(1, 24)))
    for _ in range(130):
        picks = (source.choice(ranges) for _ in range(source.randint(2, 30)))
        yield "".join(chr(source.randint(low, high)) for low, high in picks)
    words = " ".join(TEXTS + CODE).split()
    for _ in range(220):
        separator = source.choice((" ", "  ", "\n", "", ", ", "\t", " - ", "_"))
        yield separator.join(source.choice(words) for _ in range(source.randint(1, 9)))
    for _ in range(100):
        yield "".join(source.choice(" \n\t\r'\"<>|a1.é\u2581") for _ in range(source.randint(1, 40)))
    for _ in range(60):
        digits = "".join(source.choice("0123456789., -+%") for _ in range(source.randint(1, 20)))
        yield source.choice((digits, "n=" + digits, digits + " km", " " + digits))


def control_texts(source, control):
    for text in control:
        yield from (text, f"a{text}b", f" {text} ", text + text, text[:-1], text[1:], f"\n{text}\n", text.upper())
    for _ in range(60):
        parts = [source.choice(control + ["hi", " ", "\n", "<", "|>", "text ", "é"]) for _ in range(source.randint(2, 8))]
        yield "".join(parts)
    yield f"{control[0]}user\nHello{control[1]}\n{control[0]}assistant\n"


def strings(control):
    source = random.Random(SEED)
    pieces = [code[start:start + 60] for code in CODE for start in range(0, len(code), 37)]
    everything = TEXTS + CODE + pieces + list(runs(source)) + list(random_texts(source)) + list(control_texts(source, control))
    return list(dict.fromkeys(everything))


def load(path, name):
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    if name == "smollm2":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


def encode_all(tokenizer, texts):
    control = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    rows = []
    for text in texts:
        parsed = tokenizer.encode(text, add_special_tokens=False)
        plain = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert not any(tokenizer.convert_ids_to_tokens(i) in control - {"<unk>"} for i in plain), text
        rows.append([text, parsed] if parsed == plain else [text, parsed, plain])
    return rows


def render_all(tokenizer):
    rows = []
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        for generation, continued in ((True, False), (False, False), (False, True)):
            last_is_assistant = chat[-1][0] == "assistant"
            if (continued or generation) and continued != last_is_assistant:
                continue  # an assistant message last is continued here, and nothing else is
            options = {"add_generation_prompt": generation, "continue_final_message": continued}
            text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
            rows.append([chat, options, text, tokenizer.encode(text, add_special_tokens=False)])
    return rows


def render_dialect():
    rows = []
    for source in DIALECT:
        for chat in CHATS:
            if "messages[0]['role'] == 'system'" not in source and any(role == "system" for role, _ in chat):
                continue  # the server folds a system message that a template would drop
            messages = [{"role": role, "content": content} for role, content in chat]
            (text,), _ = render_jinja_template(
                [messages], chat_template=source, add_generation_prompt=False, bos_token="<s>", eos_token="</s>"
            )
            rows.append([source, chat, text])
    return rows


def main():
    folder = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
    for path, name in zip(map(Path, sys.argv[1:3]), ("smollm2", "gemma"), strict=True):
        tokenizer = load(path, name)
        texts = strings(CONTROL[name])
        fixture = {"strings": encode_all(tokenizer, texts)}
        if tokenizer.chat_template:
            fixture["chats"] = render_all(tokenizer)
            fixture["dialect"] = render_dialect()
        out = folder / f"text_{name}.json"
        lines = [f'"{key}":[\n' + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]"
                 for key, rows in fixture.items()]
        out.write_text("{" + ",\n".join(lines) + "}\n")
        differing = sum(len(row) == 3 for row in fixture["strings"])
        print(f"{out.name}: {len(texts)} strings, {differing} with control tokens as text, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
