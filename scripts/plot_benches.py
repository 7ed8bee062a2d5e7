# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Draws how many times better than the peer each figure of `side_by_side.py` is, per model, as one SVG.

    python scripts/plot_benches.py benches/results/*.json --out benches/results/speed.svg

A row is a model beside a peer, a column a figure. A bar is the median over the pairs of the ratio within a pair, the thin
line its smallest and largest; speeds are ours over theirs, memory and start-up theirs over ours, so to the right of the
line at 1 is better everywhere. Of files with the same model and peer the last one given counts, so newer names should
sort later; files that `side_by_side.py` did not write are named on stderr and left out. Exits 1 when nothing is left.
"""

import argparse
import json
import os
import statistics
import sys
import xml.sax.saxutils

THEIRS, OURS = "llama-server", "demeanor"
# Title and whether more is better.
FIGURES = {
    "prefill": ("prefill of 512", True),
    "decode": ("one stream", True),
    "parallel": ("16 streams", True),
    "start": ("start-up", False),
    "rss_mib": ("memory", False),
}
LABEL, COLUMN, GAP, ROW, TOP, BOTTOM, MARGIN = 300, 150, 26, 46, 104, 58, 18
INK, FAINT, GRID, BETTER, WORSE = "#1f2933", "#66727f", "#dde3e9", "#2a7f8e", "#c2703d"
STYLE = (f"text{{font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:{INK}}}"
         f".s{{font-size:11px;fill:{FAINT}}}.b{{font-weight:600}}")
TITLE = "demeanor beside llama-server on the same file: times better, 1 is equal"
EXPLAINED = ("Speed: ours over theirs. Start-up and memory: theirs over ours. "
             "Bar: median of pairs; line: smallest to largest.")


def name_of(conditions):
    if "model" in conditions:
        return conditions["model"]["file"]
    command = next(iter(conditions["commands"].values()))
    return command[command.index("-m") + 1]


def rows(paths):
    """`(model, peer)` to its figures, each `(median, smallest, largest)`, and the conditions."""
    found = {}
    for path in paths:
        with open(path, encoding="utf-8") as handle:
            data = json.load(handle)
        if not isinstance(data, dict) or not {"conditions", "summary", "runs"} <= data.keys() or THEIRS not in data["runs"][0]:
            print(f"left out: {path} holds no pairs with {THEIRS}", file=sys.stderr)
            continue
        conditions, figures = data["conditions"], {}
        for figure, (_, more) in FIGURES.items():
            pairs = [(pair[OURS].get(figure), pair[THEIRS].get(figure)) for pair in data["runs"]]
            ratios = [ours / theirs if more else theirs / ours for ours, theirs in pairs if ours and theirs]
            if ratios:
                figures[figure] = statistics.median(ratios), min(ratios), max(ratios)
        key = name_of(conditions).removesuffix(".gguf"), conditions.get("peer", {}).get("label", "llama.cpp")
        found.pop(key, None)
        found[key] = figures, conditions
    return sorted(found.items())


def text(x, y, words, size=13, anchor="start", kind=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" class="{kind}">'
            f"{xml.sax.saxutils.escape(words)}</text>")


def line(x1, y1, x2, y2, colour, width=1.0):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def fitted(words, most):
    return words if len(words) <= most else words[: most - 1] + "…"


def scale_of(entries, figure):
    """The largest value of an axis and its steps."""
    top = max([entry[figure][2] for entry in entries if figure in entry] + [1.0]) * 1.05
    step = next(step for step in (0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if top / step <= 4.5)
    return top, step


def column(entries, figure, x):
    top, step = scale_of(entries, figure)
    # Room for the number after the longest bar.
    wide = (COLUMN - 34) / top
    end = TOP + ROW * len(entries)
    out = [text(x, TOP - 22, FIGURES[figure][0], kind="b")]
    for number in range(int(top / step) + 1):
        at = x + number * step * wide
        out += [line(at, TOP - 6, at, end, GRID), text(at, end + 16, f"{number * step:g}", 11, "middle", "s")]
    for index, entry in enumerate(entries):
        if figure not in entry:
            out.append(text(x + 4, TOP + ROW * index + 27, "not measured", 11, kind="s"))
            continue
        median, low, high = entry[figure]
        y, colour = TOP + ROW * index + 12, BETTER if median >= 1 else WORSE
        out.append(f'<rect x="{x:.1f}" y="{y}" width="{median * wide:.1f}" height="20" fill="{colour}"/>')
        if high > low:
            out.append(line(x + low * wide, y + 10, x + high * wide, y + 10, INK, 1.5))
        out.append(text(x + max(median, high) * wide + 5, y + 14.5, f"{median:.2f}" if median < 10 else f"{median:.1f}", 12))
    return out + [line(x + wide, TOP - 6, x + wide, end, INK)]


def drawn(found):
    entries = [figures for _, (figures, _) in found]
    shown = [figure for figure in FIGURES if any(figure in entry for entry in entries)]
    width = MARGIN + LABEL + len(shown) * (COLUMN + GAP)
    height = TOP + ROW * len(found) + BOTTOM
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
           f"<style>{STYLE}</style>", f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
           text(MARGIN, 30, TITLE, 16, kind="b"), text(MARGIN, 49, EXPLAINED, 11, kind="s")]
    for index, ((model, peer), _) in enumerate(found):
        y = TOP + ROW * index
        if index:
            out.append(line(MARGIN, y, width - MARGIN, y, GRID))
        out.append(text(MARGIN, y + 20, fitted(model, 30), 13, kind="b"))
        out.append(text(MARGIN, y + 35, fitted("beside " + peer, 50), 11, kind="s"))
    for index, figure in enumerate(shown):
        out += column(entries, figure, MARGIN + LABEL + index * (COLUMN + GAP))
    places = sorted({f"{kept['processor']}, {kept['threads']} threads" for _, (_, kept) in found})
    pairs = sorted({kept["pairs"] for _, (_, kept) in found})
    counted = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    out.append(text(MARGIN, height - 16, f"{'; '.join(places)}; {counted} alternating pairs", 11, kind="s"))
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", help="files of side_by_side.py")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    try:
        found = rows(arguments.results)
    except (OSError, ValueError, KeyError) as error:
        print(f"FAILED to read the results: {error!r}", file=sys.stderr)
        return 1
    if not found:
        print("FAILED no file holds pairs", file=sys.stderr)
        return 1
    with open(arguments.out, "w", encoding="utf-8") as handle:
        handle.write(drawn(found))
    print(f"{arguments.out}: {len(found)} rows, {os.path.getsize(arguments.out)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
