#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`mica train` beside PyTorch + peft: the same shapes and batches, interleaved, on the same machine.

    bench/train_peers.py run train.json [--out FILE.csv] [--only case,…] [--models …] [--engines mica] [--runs 3] [--minutes 30]
    bench/train_peers.py report FILE.csv         again writes FILE.md from FILE.csv

Every case of every model in turn, one process per engine, and all of it again for each run; a step's time is the median of a
process's steps after the first. Writes one CSV (each process with its exact command) and a Markdown table. See bench/README.md.
"""
import glob
import json
import os
import pathlib
import random
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import peers_report  # noqa: E402
import peers_run  # noqa: E402
from peers_run import say  # noqa: E402

ROWS, TOKENS = 2, 256
LORA = ["--rank", "8", "--targets", "q_proj,v_proj", "--layers", "-1"]
# case: (which entry of the model mica trains; options of mica; options of peer_train.py, or None: mica alone; the case to compare it with)
CASES = {
    "lora": ("dense", LORA, [], None),
    "lora checkpointed": ("dense", LORA + ["--grad-checkpoint"], ["--checkpoint"], None),
    "lora 4-bit": ("4bit", LORA, None, "lora"),
    "lora 4-bit checkpointed": ("4bit", LORA + ["--grad-checkpoint"], None, "lora checkpointed"),
    "full f32": ("dense", ["--kind", "full", "--dtype", "f32"], ["--full"], None),
    "lora 4 rows": ("dense", LORA + ["--batch-size", "4"], None, None),
    "lora packed": ("dense", LORA + ["--batch-tokens", str(4 * TOKENS), "--max-seq", "501"], None, "lora 4 rows"),
}
DEFAULT_CASES = list(CASES)[:4]


# ---- what they train on --------------------------------------------------------------------------------------
def write_text(config, folder):
    """train.jsonl: pieces of real text, each longer than a row in any tokenizer: the config's "text", else this project's own documents."""
    root = os.path.join(HERE, "..")
    sources = [config["text"]] if "text" in config else sorted(glob.glob(os.path.join(root, "docs", "*.md"))) + [os.path.join(HERE, "NOTES.md")]
    text = "".join(pathlib.Path(s).read_text(encoding="utf-8", errors="replace") for s in sources)
    size = 16 * TOKENS
    pieces = [text[i:i + size] for i in range(0, len(text) - size, size)]
    if len(pieces) < ROWS:
        sys.exit("the text is too short: it takes %d characters" % (ROWS * size))
    put_lines(os.path.join(folder, "data"), pieces)
    draw = random.Random(1)  # 20 to 500 tokens of about four characters
    put_lines(os.path.join(folder, "mixed"), [text[i:i + 4 * draw.randint(20, 500)] for i in range(0, len(text) - 2000, 2000)])


def put_lines(folder, texts):
    os.makedirs(folder)
    with open(os.path.join(folder, "train.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"text": t}) + "\n" for t in texts)


def with_tokenizer(model, folder):
    """The model's folder; if it has no tokenizer (random weights), one of links to its files with a tokenizer of bytes."""
    if os.path.exists(os.path.join(model, "tokenizer.json")):
        return model
    out = os.path.join(folder, os.path.basename(model.rstrip("/")))
    os.makedirs(out, exist_ok=True)
    for name in os.listdir(model):
        if not os.path.lexists(os.path.join(out, name)):
            os.symlink(os.path.join(os.path.abspath(model), name), os.path.join(out, name))
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocab = {"<0x%02X>" % i: i + 3 for i in range(256)}
    with open(os.path.join(out, "tokenizer.json"), "w") as f:
        json.dump({"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
                   "added_tokens": [{"id": i, "content": t, **special} for i, t in enumerate(("<unk>", "<s>", "</s>"))],
                   "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                             "fuse_unk": False, "byte_fallback": True, "merges": [], "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, **vocab}}}, f)
    return out


# ---- running -------------------------------------------------------------------------------------------------
class Bench(peers_run.Bench):
    def prepare(self):
        self.log = os.path.join(self.folder.name, "log.jsonl")
        write_text(self.config, self.folder.name)
        for name, spec in self.config["models"].items():
            for key in ("dense", "4bit"):
                if key in spec:
                    spec[key] = with_tokenizer(os.path.abspath(spec[key]), self.folder.name)

    def mica(self, spec, case, steps):
        key, options, _, _ = CASES[case]
        return [os.path.join(self.config["build"], "mica"), "train", spec[key], "--data", os.path.join(self.folder.name, "mixed" if case == "lora packed" else "data"), "--adapter", os.path.join(self.folder.name, "out"),
                "--batch-size", str(ROWS), "--max-seq", str(TOKENS + 1), "--iters", str(steps), "--optimizer", "adamw", "--no-shuffle", "--report-every", "1",
                "--val-every", "-1", "--save-every", "-1", "--threads", str(self.threads), "--log", self.log, "--samples", "-1",
                "--json"] + options

    def peft(self, spec, case, steps):
        return [self.config["python"], os.path.join(HERE, "peer_train.py"), spec["dense"], os.path.join(self.folder.name, "data"), "--rows", str(ROWS), "--tokens", str(TOKENS),
                "--steps", str(steps), "--threads", str(self.threads)] + CASES[case][2]

    def once(self, model, case, engine, run):
        """One process; False if it fails."""
        spec = self.config["models"][model]
        command = (self.mica if engine == "mica" else self.peft)(spec, case, spec.get("steps", 4))
        if os.path.exists(self.log):
            os.remove(self.log)
        out, info = self.run(command)
        if out is None:
            say("    %s: %s" % (engine, info))
            return False
        if engine == "mica":
            events = [e for e in map(json.loads, out.strip().splitlines()) if e["event"] == "step"]
            speeds, losses = [e["tokens_per_second"] for e in events], [e["loss"] for e in events]
            with open(self.log, encoding="utf-8") as f:
                predicted = json.loads(f.readline()).get("predicted_memory_bytes", 0)
            self.add(model, case + " predicted", engine, run, predicted / 2**20, "MiB", command)
            rows = 4 if "4 rows" in case else ROWS
            if case != "lora packed" and events[-1]["tokens"] != len(events) * rows * TOKENS:
                sys.exit("mica scored %d tokens in %d steps of %d × %d" % (events[-1]["tokens"], len(events), rows, TOKENS))
        else:
            said = json.loads(out.strip().splitlines()[-1])
            speeds, losses = said["tokens_per_second"], said["loss"]
        speed, memory = statistics.median(speeds[1:]), info["peak_rss"] / 2**20
        say("    %-5s %7.1f tokens/s  %6.0f MiB  losses %s" % (engine, speed, memory, " ".join("%.3f" % x for x in losses)))
        self.add(model, case, engine, run, speed, "tokens/s", command)
        self.add(model, case + " rss", engine, run, memory, "MiB", command)
        return True

    def all(self):
        started = time.time()
        self.limits()
        self.prepare()
        todo = self.todo(DEFAULT_CASES)
        broken = set()
        for run in range(1, self.args.runs + 1):
            if run > 1 and (time.time() - started) * run / (run - 1) > 60 * self.args.minutes:
                say("out of time after %d runs" % (run - 1))
                break
            for model, case in todo:
                say("%s %s, run %d, %.0f s" % (model, case, run, time.time() - started))
                for engine in ["mica"] + (["peft"] if CASES[case][2] is not None and "python" in self.config else []):
                    if (not self.args.engines or engine in self.args.engines) and (model, case, engine) not in broken and not self.once(model, case, engine, run):
                        broken.add((model, case, engine))
                self.save()
        self.save()
        say("%s after %.0f s" % (self.out, time.time() - started))


# ---- the table -----------------------------------------------------------------------------------------------
def operations(model, case):
    """Multiply-adds (two operations each) of a token: forward, backward to the inputs, and what checkpointing repeats or full training adds."""
    D, L, H, K, Dh, F, V = peers_report.SHAPES[model][:7]
    layers, head = L * (D * (H + 2 * K) * Dh + H * Dh * D + 3 * D * F), V * D
    scores = 4 * H * Dh * L * (TOKENS + 1) / 2
    passes = 3 if case.startswith("full") else 2
    return 2 * passes * (layers + head) + (1 + 2) * scores + (2 * layers + scores if "checkpointed" in case else 0)


def markdown(path):
    about, table = peers_report.read(path)
    limits = peers_report.machine_limits(table)
    f32 = max([max(v) * 1e9 for (m, metric), cell in table.items() for v, _ in cell.values() if not m and metric.startswith("limit f32")], default=0)

    def value(model, metric, engine):
        cell = table.get((model, metric), {}).get(engine)
        return statistics.median(cell[0]) if cell else None

    out = ["# Training on %s, %s" % about, "",
           "Batches of %d × %d tokens, AdamW; LoRA of rank 8 on q and v in bf16 (mica's 4-bit: on 4-bit weights, compared with peft on bf16 ones), or all" % (ROWS, TOKENS),
           "weights in f32. \"4 rows\": batches of 4 × 256; \"packed\": examples of 20 to 500 tokens, packed to as many tokens, compared with that.",
           "Medians of the runs' medians of steps after the first; peak resident memory of the process, and what mica predicted. Ratio: above 1 (of speed)",
           "and below 1 (of memory) is better for mica. Limit: tokens/s at the machine's peak of bf16 (f32) products; share: mica's of it.", "",
           "| model | case | runs | mica tokens/s | peft | ratio | beside mica's bf16 or 4 rows | mica MiB | predicted | peft | ratio | limit | share |", "|-|-|-|-|-|-|-|-|-|-|-|-|-|"]
    show = lambda v, form: form % v if v is not None else ""  # noqa: E731
    for (model, case), cells in table.items():
        if not model or case not in CASES or "mica" not in cells:
            continue
        dense = CASES[case][3] or case
        mine, peer, own = value(model, case, "mica"), value(model, dense, "peft"), value(model, dense, "mica") if dense != case else None
        memory, other = value(model, case + " rss", "mica"), value(model, dense + " rss", "peft")
        most = (f32 if "f32" in case else limits[1]) / operations(model, case) if model in peers_report.SHAPES else None
        out.append("| " + " | ".join([model, case, str(len(cells["mica"][0])), show(mine, "%.1f"), show(peer, "%.1f"), show(peer and mine / peer, "**%.2f**"),
                                      show(own and mine / own, "%.2f"), show(memory, "%.0f"), show(value(model, case + " predicted", "mica"), "%.0f"), show(other, "%.0f"), show(other and memory / other, "**%.2f**"),
                                      show(most, "%.0f"), show(most and 100 * mine / most, "%.0f %%")]) + " |")
    return "\n".join(out) + "\n"


def report(path):
    text = markdown(path)
    with open(os.path.splitext(path)[0] + ".md", "w", encoding="utf-8") as f:
        f.write(text)
    print(text)


def read_config(path):
    config = peers_run.read_config(path, ("models",))
    for name, spec in config["models"].items():
        for case in spec.get("cases", []):
            if case not in CASES:
                sys.exit("%s: model %s: there is no case \"%s\"; there are %s" % (path, name, case, ", ".join(CASES)))
    return config


def main():
    args = peers_run.arguments(__doc__, CASES, runs=3, minutes=30, late="no further run is begun that would end later")
    if args.what == "run":
        bench = Bench(read_config(args.config), args, prefix="train-")
        bench.all()
    report(bench.out if args.what == "run" else args.csv)


if __name__ == "__main__":
    main()
