#!/usr/bin/env python3
"""Writes tests/fixtures/cards/: character cards, a Modelfile, and files that only look like them.

    python3 scripts/make_cards.py            # standard library only; the same bytes each time

Every text is written for this project. `mira` is the same character in each good file, so that tests can compare what
comes of it; the hostile files are what a stranger could send.
"""

import base64
import json
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "cards"

SIX = {
    "name": "Mira Quill",
    "description": "{{char}} keeps the lighthouse at Hollow Point. She is sixty and has never left the island.",
    "personality": "dry, patient, kind to strangers",
    "scenario": "{{user}} has been washed ashore at night.",
    "first_mes": "*The door opens a hand's width.* You are wet, {{user}}. Come in.",
    "mes_example": "<START>\n{{user}}: Who built this tower?\n{{char}}: My grandmother. Mind the third step.\n"
    "<START>\n<USER>: Are you alone?\n<BOT>: There is the lamp.",
}

BOOK = {
    "name": "Hollow Point",
    "scan_depth": 2,
    "token_budget": 200,
    "recursive_scanning": True,
    "extensions": {"map_tool/grid": [3, 4]},
    "entries": [
        {
            "keys": ["lamp", "Light"],
            "content": "The lamp burns whale oil and is called Old Ansel.",
            "extensions": {"depth": 4},
            "enabled": True,
            "insertion_order": 20,
            "priority": 5,
            "case_sensitive": False,
            "unknown_key": {"kept": True},
        },
        {
            "keys": ["Ansel"],
            "content": "Ansel was {{char}}'s brother; he drowned off the north reef.",
            "extensions": {},
            "enabled": True,
            "insertion_order": 30,
            "case_sensitive": True,
        },
        {
            "keys": ["island"],
            "secondary_keys": ["north", "reef"],
            "selective": True,
            "content": "Ships do not pass the north reef after dusk.",
            "extensions": {},
            "enabled": True,
            "insertion_order": 10,
        },
        {
            "keys": [],
            "content": "The year is 1887.",
            "constant": True,
            "position": "before_char",
            "extensions": {},
            "enabled": True,
            "insertion_order": 1,
        },
        {"keys": ["lamp"], "content": "Switched off.", "extensions": {}, "enabled": False, "insertion_order": 0},
    ],
}

V2_DATA = {
    **SIX,
    "creator_notes": "A quiet character; works best with short answers.",
    "system_prompt": "{{original}}Write the next reply of {{char}} in this chat with {{user}}.",
    "post_history_instructions": "[Stay in the year of the story. {{random:a,b}}]",
    "alternate_greetings": ["*She does not look up.* Shut the door.", "The tide brought you, then."],
    "character_book": BOOK,
    "tags": ["sea", "quiet"],
    "creator": "the authors",
    "character_version": "1.2",
    "extensions": {"other_program/voice": "low", "talkativeness": "0.5"},
    "a_key_of_tomorrow": [1, {"deep": None}],
}


def v2(**changes):
    data = {**V2_DATA, **changes}
    return {"spec": "chara_card_v2", "spec_version": "2.0", "data": data, "outside": "kept too"}


def v3():
    entries = [dict(entry, use_regex=False) for entry in BOOK["entries"]]
    entries += [
        {
            "keys": ["/storms?\\b/i", "(unclosed"],
            "content": "@@depth 4\n@@@scan_depth 1\n@@exclude_keys calm\n@@unknown_word x\n\nStorms here last three days.",
            "use_regex": True,
            "extensions": {},
            "enabled": True,
            "insertion_order": 40,
        },
        {
            "keys": ["goodbye"],
            "content": "@@activate_only_after 2\n@@additional_keys boat, ferry\nThe ferry comes on Fridays.",
            "use_regex": False,
            "extensions": {},
            "enabled": True,
            "insertion_order": 50,
        },
    ]
    data = {
        **V2_DATA,
        "character_book": {**BOOK, "entries": entries},
        "nickname": "Mira",
        "assets": [{"type": "icon", "uri": "https://pictures.invalid/mira.png", "name": "main", "ext": "png"}],
        "group_only_greetings": [],
        "source": ["https://cards.invalid/mira"],
        "creation_date": 1700000000,
        "creator_notes_multilingual": {"de": "Eine stille Figur."},
    }
    return {"spec": "chara_card_v3", "spec_version": "3.0", "data": data}


def text(value):
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def packed(value):
    return base64.b64encode(json.dumps(value, ensure_ascii=False).encode())


def chunk(kind, data, crc=None):
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(*texts, before=b"", after=b""):
    """A picture of one grey pixel with chunks in front of its data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0\x80", 9))
    return b"\x89PNG\r\n\x1a\n" + head + before + b"".join(texts) + data + after + chunk(b"IEND", b"")


def text_chunk(keyword, value):
    return chunk(b"tEXt", keyword + b"\0" + value)


def archive(*files):
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in files:
            zipped.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED, 9)
    return out.getvalue()


MODELFILE = '''# A Modelfile with one of everything
FROM llama3.2:3b
PARAMETER temperature 0.7
PARAMETER top_k 40
PARAMETER repeat_penalty 1.1
PARAMETER num_ctx 4096
PARAMETER num_predict -1
PARAMETER stop "<|eot|>"
PARAMETER stop "Keeper:"
TEMPLATE """{{ if .System }}{{ .System }}{{ end }}
{{ .Prompt }}"""
SYSTEM """
You keep the lighthouse at Hollow Point.
Answer in one or two sentences.
"""
MESSAGE user Who built this tower?
MESSAGE assistant """My grandmother.
Mind the third step."""
LICENSE "CC0"
'''


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    long = zlib.compress(b" " * (8 << 20), 9)
    overflow = png(struct.pack(">I", 0x7FFFFFF0) + b"tEXt" + b"chara\0")
    newer = v2()
    newer.update(spec_version="2.7")
    files = {
        "mira_v1.json": text({**SIX, "from_the_future": 1}),
        "mira_v2.json": b"\xef\xbb\xbf" + text(v2()),
        "mira_v3.json": text(v3()),
        "mira_v2.png": png(text_chunk(b"Chara", packed(v2()))),
        # Two cards in an animated picture: the one of V3 counts.
        "mira_both.png": png(
            chunk(b"acTL", struct.pack(">II", 1, 0)),
            text_chunk(b"chara", packed(v2(name="Backfilled"))),
            text_chunk(b"ccv3", packed(v3())),
        ),
        "mira_packed.png": png(
            chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"no card")),
            chunk(b"iTXt", b"ccv3\0\1\0en\0ccv3\0" + zlib.compress(packed(v3()).rstrip(b"="), 9)),
        ),
        "mira_v3.charx": archive(("card.json", text(v3())), ("assets/icon/images/main.png", png())),
        "Modelfile": MODELFILE.encode(),
        "newer.json": text(newer),
        "bad_crc.png": png(chunk(b"tEXt", b"chara\0" + packed(v2()), crc=1)),
        "bad_length.png": overflow,
        "bad_base64.png": png(text_chunk(b"chara", b"?this is not base64!")),
        "bad_bomb.png": png(chunk(b"zTXt", b"chara\0\0" + long)),
        "bad_bomb.charx": archive(("card.json", b" " * (8 << 20))),
        "bad_traversal.charx": archive(("card.json", text(v3())), ("../../outside.json", b"{}")),
        "bad_no_card.charx": archive(("cards/card.json", text(v3()))),
        "bad_deep.json": b'{"spec":"chara_card_v2","data":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "bad_duplicate.json": b'{"name":"a","name":"b","description":"","first_mes":""}',
        "bad_spec.json": text({**v2(), "spec": "chara_card_v9"}),
        "bad_version.json": text({**v2(), "spec_version": "latest"}),
        "bad_surrogate.json": b'{"name":"a\\ud800","description":"","first_mes":"","personality":""}',
        "bad_type.json": text(v2(description=["not", "a", "text"])),
        "bad_book.json": text(v2(character_book={"entries": [{"keys": "lamp", "content": "x"}]})),
        "bad_adapter.modelfile": b"FROM base\nADAPTER ./lora.gguf\n",
    }
    for name, data in files.items():
        (OUT / name).write_bytes(data)
    total = sum(len(data) for data in files.values())
    print(f"{len(files)} files, {total} bytes, in {OUT}")


if __name__ == "__main__":
    main()
