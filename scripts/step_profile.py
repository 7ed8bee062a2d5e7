# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Where the processor time of prefill, of one stream and of sixteen goes, by kernel: samples of `perf` on `demeanor bench`.

    cargo build --release --config profile.release.strip=false \\
        --config 'profile.release.package.demeanor.debug="line-tables-only"'
    python scripts/step_profile.py --demeanor target/release/demeanor --model M.gguf --out profile.json

Needs `perf` and `addr2line`. The kernels are inlined into one function each instruction set, so a sample is assigned by
the chain of inlined functions that its address belongs to: to the outermost file of `src/kernels/` in it that holds a
kernel (the part), and within it to the innermost function there. `pool` is threads that wait for each other. What
loading the model costs is left out. A table goes to stdout, the same as JSON to `--out`.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile

import conditions

PHASES = {
    "prefill of 512": ["--prompt", "512", "--tokens", "2", "--batches", "1", "--repeats", "25"],
    "one stream": ["--prompt", "16", "--tokens", "256", "--batches", "1", "--repeats", "9"],
    "sixteen streams": ["--prompt", "16", "--tokens", "128", "--batches", "16", "--repeats", "4"],
}
HERTZ = 2000
# Files of src/kernels/ that no kernel is named after.
BELOW = {"isa.rs", "math.rs", "mod.rs", "avx2.rs", "avx512.rs", "portable.rs", "amx.rs", "aligned.rs", "planes.rs", "rows.rs"}
LOADING = re.compile(r"sha2|::packed::|::weights::|::blocks::|::load::|clear_page|clear_huge_page|crc|zeroed")
SHOWN = 0.5


def samples(program, model, flags, folder):
    """Places in the program's file, or symbols elsewhere, to their number of samples."""
    data = os.path.join(folder, "perf.data")
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-o", data, program, "bench", "-m", model, "--pairs", "0", *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    said = subprocess.run(["perf", "script", "-i", data, "-F", "pid,ip,sym,dso", "--show-mmap-events"], check=True, capture_output=True, text=True)
    counts, starts = collections.Counter(), {}
    name = re.escape(os.path.realpath(program))
    for line in said.stdout.splitlines():
        mapped = re.search(rf"MMAP2 (\d+)/\d+: \[(0x[0-9a-f]+)\(0x[0-9a-f]+\) @ (0x[0-9a-f]+|0) .*r-xp {name}", line)
        if mapped:
            # From the address in memory to the place in the file; the process that checks the model has its own.
            starts[mapped[1]] = int(mapped[2], 16) - int(mapped[3], 16)
            continue
        sample = re.match(r"\s*(\d+)\s+([0-9a-f]+) (.*) \((.*)\)$", line)
        if sample and os.path.basename(sample[4]) != os.path.basename(program):
            counts[0, sample[3]] += 1
        elif sample and sample[1] in starts:
            counts[int(sample[2], 16) - starts[sample[1]], None] += 1
    return counts


def sections(program):
    """`(address, offset in the file, size)` of each loaded part of an ELF file."""
    said = subprocess.run(["readelf", "-lW", program], check=True, capture_output=True, text=True).stdout
    loads = re.findall(r"LOAD\s+(0x[0-9a-f]+) (0x[0-9a-f]+) 0x[0-9a-f]+ (0x[0-9a-f]+)", said)
    return [(int(address, 16), int(offset, 16), int(size, 16)) for offset, address, size in loads]


def chains(program, addresses):
    """The inlined functions of each address, innermost first, each `(function, file)`."""
    asked = "\n".join(f"{address:#x}" for address in addresses)
    said = subprocess.run(["addr2line", "-a", "-i", "-f", "-C", "-e", program], input=asked, check=True, capture_output=True, text=True)
    found, current = {}, None
    lines = iter(said.stdout.splitlines())
    for line in lines:
        if re.fullmatch(r"0x[0-9a-f]{16}", line):
            current = found.setdefault(int(line, 16), [])
        else:
            current.append((line, next(lines).split(":")[0]))
    return found


def part_of(chain):
    """Part and function of a chain."""
    kernels = [(function, os.path.basename(file)) for function, file in chain if "/kernels/" in file]
    named = [file for _, file in kernels if file not in BELOW]
    if named:
        outermost = named[-1]
        function = next(function for function, file in kernels if file == outermost)
        return outermost.removesuffix(".rs"), short(function)
    for function, file in chain:
        if "/src/" in file and "/rustc/" not in file and "/registry/" not in file:
            return file.split("/src/")[-1].removesuffix(".rs"), short(function)
    return "other", short(chain[0][0]) if chain else "?"


def short(function):
    parts = [part for part in re.sub(r"<[^<>]*>", "", function).split("::") if part and not part.startswith(("{", "h0x"))]
    parts = [part for part in parts if not re.fullmatch(r"h[0-9a-f]{16}", part)]
    return parts[-1] if parts else function


def shares(program, model, flags):
    with tempfile.TemporaryDirectory() as folder:
        counts = samples(program, model, flags, folder)
    if not counts:
        raise RuntimeError("perf took no samples")
    loads, by_address, parts, functions = sections(program), {}, collections.Counter(), collections.Counter()
    for (offset, symbol), count in counts.items():
        if symbol is not None:
            part, function = ("system", symbol)
            if not LOADING.search(symbol):
                parts[part] += count
                functions[part, function] += count
            continue
        address = next((offset - begin + first for first, begin, size in loads if begin <= offset < begin + size), offset)
        by_address[address] = by_address.get(address, 0) + count
    for address, chain in chains(program, list(by_address)).items():
        if any(LOADING.search(f"{function} {file}") for function, file in chain):
            continue
        part, function = part_of(chain)
        parts[part] += by_address[address]
        functions[part, function] += by_address[address]
    total = sum(parts.values())
    percent = lambda count: round(100 * count / total, 1)
    return {part: {"percent": percent(count),
                   "functions": {name: percent(n) for (owner, name), n in functions.most_common() if owner == part and 100 * n >= SHOWN * total}}
            for part, count in parts.most_common() if 100 * count >= SHOWN * total}


def table(phases):
    print(f"| part | {' | '.join(phases)} |\n|{'---|' * (len(phases) + 1)}")
    parts = sorted({part for shares in phases.values() for part in shares},
                   key=lambda part: -sum(shares.get(part, {"percent": 0})["percent"] for shares in phases.values()))
    for part in parts:
        cells = []
        for found in phases.values():
            entry = found.get(part)
            inside = ", ".join(f"{name} {value}" for name, value in list(entry["functions"].items())[:3]) if entry else ""
            cells.append(f"{entry['percent']} ({inside})" if inside else str(entry["percent"]) if entry else "")
        print(f"| {part} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demeanor", required=True, help="built with line tables")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    program = os.path.realpath(arguments.demeanor)
    try:
        phases = {name: shares(program, arguments.model, flags) for name, flags in PHASES.items()}
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"FAILED {error}", file=sys.stderr)
        return 1
    kept = conditions.processor() | {"commit": conditions.commit(), "model": os.path.basename(arguments.model)}
    with open(arguments.out, "w", encoding="utf-8") as handle:
        json.dump({"conditions": kept, "percent_of_samples": phases}, handle, indent=1)
        handle.write("\n")
    table(phases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
