# SPDX-License-Identifier: Apache-2.0
"""From the CSV of peers.py to a Markdown table (medians, ratios to the best peer, shares of the machine's limit) and a plot
(SVG). Needs nothing but Python."""
import csv
import html
import os
import statistics

# hidden size, layers, heads, heads of keys, size of a head, feed-forward, vocabulary, window, one layer in so many without it
SHAPES = {
    "gemma3-1b": (1152, 26, 4, 1, 256, 6912, 262144, 512, 6),
    "qwen3-0.6b": (1024, 28, 16, 8, 128, 3072, 151936, 0, 1),
    "llama3.2-1b": (2048, 16, 32, 8, 64, 8192, 128256, 0, 1),
    "smollm2-135m": (576, 30, 9, 3, 64, 1536, 49152, 0, 1),
}
BITS = 4.5  # 4-bit codes with 16 bits each of scale and bias a group of 64, or a 16-bit scale a group of 32
COLOURS = ["#1b6ac9", "#7fb2ee", "#d9822b", "#3f9c57", "#a05ab5", "#8a8a8a", "#c94f4f", "#b59a2a"]


def read(path):
    """(machine and date, {(model, metric): {engine: ([values], unit)}} in the order of the file)."""
    table, about = {}, ("", "")
    with open(path, newline="") as f:
        for r in csv.DictReader(f):
            about = (r["machine"], r["date"])
            cell = table.setdefault((r["model"], r["metric"]), {}).setdefault(r["engine"], ([], r["unit"]))
            cell[0].append(float(r["value"]))
    return about, table


def is_mica(engine):
    return engine.split()[0] == "mica"


def machine_limits(table):
    """Bytes a second of all threads, and the best bf16 (else f32) multiply-adds a second."""
    best = {}
    for (model, metric), cell in table.items():
        if model or not metric.startswith("limit "):
            continue
        kind = metric.split()[1]
        best[kind] = max(best.get(kind, 0), max(v for values, _ in cell.values() for v in values) * 1e9)
    return best.get("read", 0), max(best.get("bf16", 0), best.get("f32", 0))


def limits_of(table):
    """(model, metric) -> (bytes a second, operations a second): the bandwidth beside these very runs, where it was measured."""
    read_speed, peak = machine_limits(table)

    def find(model, metric):
        beside = table.get((model, "read " + metric))
        return (statistics.median(beside["machine"][0]) * 1e9 if beside else read_speed), peak

    return find


def attention_pairs(shape, first, n):
    """Pairs of query and key for positions first … first+n-1, over all layers."""
    layers, window, every = shape[1], shape[7], shape[8]
    full = sum(i + 1 for i in range(first, first + n))
    if not window:
        return layers * full
    near = sum(min(i + 1, window) for i in range(first, first + n))
    return layers // every * full + (layers - layers // every) * near


def limit(model, metric, read_speed, peak):
    """Tokens a second that the machine could do at most; None where that is not defined."""
    dense = model.endswith("-bf16")
    shape = SHAPES.get(model[:-5] if dense else model)
    if not shape or not read_speed or not peak:
        return None
    D, L, H, K, Dh, F, V = shape[:7]
    layers, head = L * (D * (H + 2 * K) * Dh + H * Dh * D + 3 * D * F), V * D
    bits = 16 if dense else BITS
    weights = (layers + head) * bits / 8
    if metric.startswith("prefill"):
        n = int(metric[len("prefill"):])
        return n * peak / (2 * layers * n + 2 * head + 4 * H * Dh * attention_pairs(shape, 0, n))
    if metric.startswith("decode") and "rss" not in metric:
        depth = int(metric[len("decode"):] or 0)
        return read_speed / (weights + 4 * K * Dh * attention_pairs(shape, depth, 1))
    if metric.startswith("batch"):
        n = int(metric[len("batch"):])
        return n / max(weights / read_speed, 2 * (layers + head) * n / peak)
    return None


def summarise(table):
    """One row per model and metric: (model, metric, unit, {engine: (median, runs)}, ratio of mica to the best peer)."""
    rows = []
    for (model, metric), cells in table.items():
        if not model or metric.startswith("read "):
            continue
        middle = {e: (statistics.median(v), len(v)) for e, (v, _) in cells.items()}
        unit = next(iter(cells.values()))[1]
        less = unit in ("s", "MiB")
        peers = [m for e, (m, _) in middle.items() if not is_mica(e)]
        best = (min if less else max)(peers) if peers else None
        ratio = None
        if best and "mica" in middle:
            ratio = best / middle["mica"][0] if less else middle["mica"][0] / best
        rows.append((model, metric, unit, middle, ratio))
    return rows


def engines_of(rows):
    found = []
    for row in rows:
        found += [e for e in row[3] if e not in found]
    return sorted(found, key=lambda e: (not is_mica(e), found.index(e)))


def figure(v):
    return "%.3f" % v if v < 1 else "%.2f" % v if v < 10 else "%.1f" % v if v < 100 else "%.0f" % v


def busy_lines(rows):
    """What each engine keeps of its speed beside one busy thread."""
    decode = {r[0]: r[3] for r in rows if r[1] == "decode"}
    for model, metric, _, cells, _ in rows:
        if metric == "busy" and model in decode:
            kept = ["%s %.2f" % (e, m / decode[model][e][0]) for e, (m, _) in cells.items() if e in decode[model]]
            yield "%s beside one busy thread keeps of its decoding speed: %s." % (model, ", ".join(kept))


def markdown(about, table):
    rows, limits = summarise(table), limits_of(table)
    engines = engines_of(rows)
    out = ["# %s, %s" % about, "",
           "Medians; in brackets the number of runs where it is not that of mica (a peer far behind the best one rests).",
           "Ratio: mica to the best peer, above 1 is better for mica. Limit: from the bf16 peak below, the read bandwidth measured",
           "beside the same runs, and the model's size (4-bit weights count %.1f bits each); share: mica's of it." % BITS, "",
           "| model | what | unit | %s | ratio | limit | share |" % " | ".join(engines), "|-|-|-|" + "-|" * (len(engines) + 3)]
    for model, metric, unit, cells, ratio in rows:
        runs = cells["mica"][1] if "mica" in cells else 0
        shown = [figure(cells[e][0]) + ("" if cells[e][1] == runs else " (%d)" % cells[e][1]) if e in cells else "" for e in engines]
        most = limit(model, metric, *limits(model, metric))
        share = "%.0f %%" % (100 * cells["mica"][0] / most) if most and "mica" in cells else ""
        out.append("| %s | %s | %s | %s | %s | %s | %s |" % (model, metric, unit, " | ".join(shown), "**%.2f**" % ratio if ratio else "",
                                                         figure(most) if most else "", share))
    out += [""] + list(busy_lines(rows)) + ["", "| limit of the machine | |", "|-|-|"]
    for (model, metric), cells in table.items():
        if not model:
            values, unit = next(iter(cells.values()))
            out.append("| %s | %s %s |" % (metric[len("limit "):], figure(max(values)), unit))
    return "\n".join(out) + "\n"


def svg(about, table):
    """Bars: speed relative to the best peer's, one block per model and metric; a mark at the machine's limit."""
    rows, limits = summarise(table), limits_of(table)
    rows = [r for r in rows if r[2] == "tokens/s" and r[4]]
    engines = engines_of(rows)
    left, right, bar, gap, top = 190, 640, 11, 12, 64
    scale, parts, y = (right - left) / 3.0, [], top
    for model, metric, _, cells, _ in rows:
        best = max(m for e, (m, _) in cells.items() if not is_mica(e))
        start = y
        for i, e in enumerate(engines):
            if e not in cells:
                continue
            width = min(cells[e][0] / best, 3.1) * scale
            parts.append('<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d" class="v">%s</text>'
                         % (left, y, width, bar - 1, COLOURS[i % len(COLOURS)], left + width + 4, y + bar - 2, figure(cells[e][0])))
            y += bar
        parts.append('<text x="%d" y="%d" text-anchor="end">%s %s</text>' % (left - 8, (start + y) // 2 + 4, html.escape(model), metric))
        most = limit(model, metric, *limits(model, metric))
        if most and most / best < 3.1:
            x = left + most / best * scale
            parts.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#c00" stroke-width="2"/>' % (x, x, start - 2, y + 1))
        y += gap
    legend = "".join('<rect x="%d" y="34" width="10" height="10" fill="%s"/><text x="%d" y="43">%s</text>'
                     % (left + i * 120, COLOURS[i % len(COLOURS)], left + i * 120 + 14, html.escape(e)) for i, e in enumerate(engines))
    one = left + scale
    return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">\n'
            '<style>.v{font-size:9px;fill:#444}</style><rect width="100%%" height="100%%" fill="#fff"/>\n'
            '<text x="10" y="20" font-size="14">tokens/s relative to the best peer (red: limit of the machine) — %s, %s</text>\n%s\n'
            '<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#888" stroke-dasharray="3 3"/>\n%s\n</svg>\n'
            % (max(right + 60, left + 120 * len(engines)), y + 10, html.escape(about[0]), about[1], legend, one, one, top - 6, y,
               "\n".join(parts)))


def write(path):
    about, table = read(path)
    base = os.path.splitext(path)[0]
    for ending, text in ((".md", markdown(about, table)), (".svg", svg(about, table))):
        with open(base + ending, "w") as f:
            f.write(text)
    print(markdown(about, table))
