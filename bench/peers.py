#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mica beside other programs that run language models on CPUs: the same shapes, interleaved, on the same machine.

    bench/peers.py run peers.json [--out FILE.csv] [--only case,…] [--models …] [--engines …] [--runs 5] [--minutes 25]
    bench/peers.py report FILE.csv         again writes FILE.md and FILE.svg from FILE.csv

`run` measures the limits of the machine, then every case of every model: one process per engine and run, in the order
A B C A B C …; it writes one CSV (each run with its exact command), a Markdown table and a plot. An engine whose best run
is far below the best peer's is not run to the end of a case (--all: run it anyway). See bench/README.md.
"""
import argparse
import csv
import datetime
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import peers_report  # noqa: E402

# case: (prompt or depth, tokens decoded, sequences, what of it counts: {metric: "prefill" or "decode"})
CASES = {
    "decode": (1, 48, 1, {"decode": "decode"}),
    "prefill512": (512, 1, 1, {"prefill512": "prefill"}),
    "deep": (2048, 32, 1, {"prefill2048": "prefill", "decode2048": "decode"}),
    "batch8": (16, 16, 8, {"batch8": "decode"}),
    "batch32": (16, 8, 32, {"batch32": "decode"}),
    "busy": (1, 32, 1, {"busy": "decode"}),
    "start": None,
}
DEFAULT_CASES = ["decode", "prefill512", "deep", "batch8", "batch32"]
BOUND_BY_READING = ("decode", "deep", "batch8", "batch32")
HOPELESS = {1: 0.6, 2: 0.85}  # after so many runs, an engine below this share of the best peer rests
PROMPT = "Hello my name is"
COLUMNS = ["machine", "date", "model", "metric", "engine", "run", "value", "unit", "command"]


# ---- commands and what they print ---------------------------------------------------------------------------
def mica_commands(e, model, case, threads):
    depth, tokens, batch, metrics = CASES[case]
    base = [e["bin"], "bench"] + model + e.get("args", []) + ["--threads", str(threads), "--repeat", "1", "--json"]
    if depth == 1:
        depth = 0
    if "decode" in metrics.values():
        return base + ["--prefill", "0", "--decode", str(tokens), "--depth", str(depth), "--batch", str(batch)]
    return base + ["--prefill", str(depth), "--decode", "0"]


def llama_commands(e, model, case, threads):
    depth, tokens, batch, _ = CASES[case]
    per_sequence = -(-(depth + tokens + 1) // 256) * 256
    return [os.path.join(e["bin"], "llama-batched-bench"), "-m"] + model + [
        "-t", str(threads), "-tb", str(threads), "-c", str(per_sequence * batch), "-b", "2048", "-ub", "512",
        "-npp", str(depth), "-ntg", str(tokens), "-npl", str(batch)] + e.get("args", [])


def python_commands(e, model, case, threads):
    depth, tokens, batch, _ = CASES[case]
    return [e["python"], os.path.join(HERE, "peer_python.py"), e["backend"]] + model + [
        "--threads", str(threads), "--prompt", str(depth), "--decode", str(tokens), "--batch", str(batch)] + e.get("args", [])


def start_command(e, model, threads):
    """A short prompt and one token, from the start of the process to its end."""
    if e["kind"] == "mica":
        return [e["bin"], "generate"] + model + [PROMPT, "-n", "1", "--threads", str(threads)]
    if e["kind"] == "llama":
        return [os.path.join(e["bin"], "llama-simple"), "-m"] + model + e.get("start_args", ["-n", "1", PROMPT])
    return None


def parse_mica(text):
    """{"prefill": tokens/s, "decode": tokens/s} from `mica bench --json`."""
    found = {}
    for r in json.loads(text):
        found[r["test"]] = r["tokens_per_second"]
        if r["depth"] and r.get("depth_seconds") and "prefill" not in found:
            found["prefill"] = r["depth"] * r["batch"] / statistics.median(r["depth_seconds"])
    return found


def parse_llama(text):
    """The same from the table of llama-batched-bench: |PP|TG|B|N_KV|T_PP s|S_PP t/s|T_TG s|S_TG t/s|T s|S t/s|."""
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if len(cells) == 10 and all(re.fullmatch(r"[0-9.]+", c) for c in cells):
            return {"prefill": float(cells[5]), "decode": float(cells[7])}
    raise ValueError("no row of figures")


def parse_python(text):
    r = json.loads(text.strip().splitlines()[-1])
    return {"prefill": r["prefill"], "decode": r["decode"]}


KINDS = {"mica": (mica_commands, parse_mica), "llama": (llama_commands, parse_llama), "python": (python_commands, parse_python)}


def parse_measure(text):
    """What `measure` says in its last line."""
    for line in reversed(text.splitlines()):
        if line.startswith("measure: {"):
            return json.loads(line[len("measure: "):])
    raise ValueError("no line of `measure`")


def parse_limits(text):
    """{("read", "", 1): GB/s, ("bf16", "avx512", 2): GFLOP/s, …} from bench_limits."""
    rows = csv.DictReader(text.strip().splitlines())
    return {(r["limit"], r["level"], int(r["threads"])): (float(r["value"]), r["unit"]) for r in rows}


# ---- running -------------------------------------------------------------------------------------------------
class Bench:
    def __init__(self, config, args):
        self.config, self.args = config, args
        self.threads = args.threads or config.get("threads") or os.cpu_count()
        self.machine = config.get("machine") or machine_name()
        self.out = args.out or os.path.join(HERE, "results", self.machine + ".csv")
        self.date = datetime.date.today().isoformat()
        self.rows = []
        self.folder = tempfile.TemporaryDirectory()  # engines may leave logs where they run

    def run(self, command, busy=0, limit=240):
        """Stdout and the line of `measure`; None and why not, if it fails."""
        measure = [os.path.join(self.config["build"], "bench", "measure")] + (["--busy", str(busy)] if busy else [])
        try:
            p = subprocess.run(self.config.get("wrap", []) + measure + command, capture_output=True, text=True, timeout=limit,
                               errors="replace", stdin=subprocess.DEVNULL, cwd=self.folder.name)
        except subprocess.TimeoutExpired:
            return None, "more than %d s" % limit
        if p.returncode:
            lines = [s for s in p.stderr.strip().splitlines() if not s.startswith("measure:")]
            return None, "status %d: %s" % (p.returncode, lines[-1] if lines else "")
        return p.stdout + "\n" + p.stderr if "llama" in command[0] else p.stdout, parse_measure(p.stderr)

    def add(self, model, metric, engine, run, value, unit, command):
        shown = shlex.join(a if a.startswith("-") else os.path.basename(a) or a for a in command)
        self.rows.append(dict(zip(COLUMNS, [self.machine, self.date, model, metric, engine, run, "%.6g" % value, unit, shown])))

    def limits(self):
        command = [os.path.join(self.config["build"], "bench", "bench_limits"), str(self.threads)]
        out, why = self.run(command)
        if out is None:
            sys.exit("bench_limits: " + why)
        for (limit, level, threads), (value, unit) in parse_limits(out).items():
            name = " ".join(str(x) for x in (limit, level, threads) if x != "")
            self.add("", "limit " + name, "machine", 1, value, unit, command)

    def bandwidth(self, model, case, run):
        """Neighbours on the host change the bandwidth from minute to minute: it is measured again beside every such run."""
        command = [os.path.join(self.config["build"], "bench", "bench_limits"), "--read", str(self.threads)]
        out, why = self.run(command)
        if out is None:
            sys.exit("bench_limits: " + why)
        for metric, part in CASES[case][3].items():
            if part == "decode":
                self.add(model, "read " + metric, "machine", run, parse_limits(out)[("read", "", self.threads)][0], "GB/s", command)

    def once(self, name, e, model, case, run):
        """Runs one engine once; its speed for ranking, None if it cannot."""
        at = self.config["models"][model][e.get("model", name)]
        at = [at] if isinstance(at, str) else at
        command = start_command(e, at, self.threads) if case == "start" else KINDS[e["kind"]][0](e, at, case, self.threads)
        if command is None:
            return None
        out, info = self.run(command, busy=1 if case == "busy" else 0)
        if out is None:
            say("    %s %s: %s" % (name, case, info))
            return None
        if case == "start":
            self.add(model, "start", name, run, info["seconds"], "s", command)
            self.add(model, "rss", name, run, info["peak_rss"] / 2**20, "MiB", command)
            return 1 / info["seconds"]
        try:
            got = KINDS[e["kind"]][1](out)
        except (ValueError, KeyError) as error:
            say("    %s %s: %s" % (name, case, error))
            return None
        for metric, part in CASES[case][3].items():
            self.add(model, metric, name, run, got[part], "tokens/s", command)
        if case == "decode":
            self.add(model, "decode rss", name, run, info["peak_rss"] / 2**20, "MiB", command)
        return min(got[part] for part in CASES[case][3].values()) if len(CASES[case][3]) == 1 else got["prefill"] * got["decode"]

    def case(self, model, case, until):
        engines = {n: e for n, e in self.config["engines"].items()
                   if e.get("model", n) in self.config["models"][model] and (not self.args.engines or n in self.args.engines)
                   and case not in e.get("skip", [])}
        best = {}
        for run in range(1, self.args.runs + 1):
            if run > 3 and time.time() > until:
                say("    out of time after %d runs" % (run - 1))
                break
            if case in BOUND_BY_READING:
                self.bandwidth(model, case, run)
            for name, e in list(engines.items()):
                speed = self.once(name, e, model, case, run)
                if speed is None:
                    del engines[name]
                else:
                    best[name] = max(best.get(name, 0), speed)
            peer = max([s for n, s in best.items() if self.config["engines"][n]["kind"] != "mica"], default=0)
            share = HOPELESS.get(run, 0) ** (2 if case == "deep" else 1)
            if not self.args.all:
                engines = {n: e for n, e in engines.items() if e["kind"] == "mica" or best[n] >= share * peer}
            self.save()

    def save(self):
        os.makedirs(os.path.dirname(os.path.abspath(self.out)), exist_ok=True)
        with open(self.out + ".new", "w", newline="") as f:
            w = csv.DictWriter(f, COLUMNS, lineterminator="\n")
            w.writeheader()
            w.writerows(self.rows)
        os.replace(self.out + ".new", self.out)

    def all(self):
        started = time.time()
        self.limits()
        todo = [(m, c) for m, spec in self.config["models"].items() for c in spec.get("cases", DEFAULT_CASES)
                if (not self.args.models or m in self.args.models) and (not self.args.only or c in self.args.only)]
        for i, (model, case) in enumerate(todo):
            left = started + 60 * self.args.minutes - time.time()
            say("%s %s (%d of %d, %.0f s left)" % (model, case, i + 1, len(todo), left))
            self.case(model, case, time.time() + left / (len(todo) - i) * 1.5)
        self.save()
        say("%s after %.0f s" % (self.out, time.time() - started))


def machine_name():
    """The processor's name and the number of CPUs, fit for a file name."""
    name = ""
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                name = line.split(":", 1)[1]
                break
    name = re.sub(r"\((R|TM)\)|CPU|Processor|@.*", "", name)
    return "%s-%d" % (re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "cpu", os.cpu_count())


def say(text):
    print(text, file=sys.stderr, flush=True)


def read_config(path):
    """The config with relative paths made absolute (from where the script was started); a mistake in it ends the program with a message."""
    with open(path) as f:
        config = json.load(f)
    for key in ("engines", "models"):
        if not isinstance(config.get(key), dict) or not config[key]:
            sys.exit("%s: \"%s\" must be an object with at least one entry" % (path, key))
    config["build"] = os.path.abspath(config.get("build", os.path.join(HERE, "..", "build")))
    for name, e in config["engines"].items():
        if e.get("kind") not in KINDS:
            sys.exit("%s: engine %s: kind must be one of %s" % (path, name, ", ".join(KINDS)))
        for key in ("bin", "python"):
            if os.sep in e.get(key, ""):
                e[key] = os.path.abspath(e[key])
        if e["kind"] == "mica":
            e.setdefault("bin", os.path.join(config["build"], "mica"))
            e.setdefault("model", "mica")
    for spec in config["models"].values():
        for key, at in spec.items():
            if isinstance(at, str):
                spec[key] = os.path.abspath(at)
    return config


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")  # noqa: E731
    sub = parser.add_subparsers(dest="what", required=True)
    run = sub.add_parser("run", help="measure and report")
    run.add_argument("config")
    run.add_argument("--out", help="default: bench/results/MACHINE.csv")
    run.add_argument("--only", type=names, help="cases: " + ",".join(CASES))
    run.add_argument("--models", type=names)
    run.add_argument("--engines", type=names)
    run.add_argument("--runs", type=int, default=5)
    run.add_argument("--minutes", type=float, default=25, help="after these, cases get fewer runs (never fewer than 3)")
    run.add_argument("--threads", type=int)
    run.add_argument("--all", action="store_true", help="run hopeless engines to the end too")
    report = sub.add_parser("report", help="table and plot from a CSV")
    report.add_argument("csv")
    args = parser.parse_args()
    if args.what == "report":
        peers_report.write(args.csv)
        return
    bench = Bench(read_config(args.config), args)
    bench.all()
    peers_report.write(bench.out)


if __name__ == "__main__":
    main()
