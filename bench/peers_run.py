# SPDX-License-Identifier: Apache-2.0
"""What peers.py and train_peers.py share: the command line, processes run under `measure`, the limits of the machine, the CSV."""
import argparse
import csv
import datetime
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
COLUMNS = ["machine", "date", "model", "metric", "engine", "run", "value", "unit", "command"]


def say(text):
    print(text, file=sys.stderr, flush=True)


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


class Bench:
    """Rows of the CSV, from commands run one at a time; what is run in which order is the business of those who derive from it."""

    def __init__(self, config, args, prefix=""):
        self.config, self.args = config, args
        self.threads = args.threads or config.get("threads") or os.cpu_count()
        self.machine = config.get("machine") or machine_name()
        self.out = args.out or os.path.join(HERE, "results", prefix + self.machine + ".csv")
        self.date = datetime.date.today().isoformat()
        self.rows = []
        self.folder = tempfile.TemporaryDirectory()  # engines may leave logs where they run

    def todo(self, cases):
        """Pairs of model and case: those of the config (a model's own, else `cases`) that the command line lets through."""
        return [(m, c) for m, spec in self.config["models"].items() for c in spec.get("cases", cases)
                if (not self.args.models or m in self.args.models) and (not self.args.only or c in self.args.only)]

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

    def bench_limits(self, *options):
        """The command and what it finds."""
        command = [os.path.join(self.config["build"], "bench", "bench_limits"), *options, str(self.threads)]
        out, why = self.run(command)
        if out is None:
            sys.exit("bench_limits: " + why)
        return command, parse_limits(out)

    def limits(self):
        command, found = self.bench_limits()
        for (limit, level, threads), (value, unit) in found.items():
            name = " ".join(str(x) for x in (limit, level, threads) if x != "")
            self.add("", "limit " + name, "machine", 1, value, unit, command)

    def save(self):
        os.makedirs(os.path.dirname(os.path.abspath(self.out)), exist_ok=True)
        with open(self.out + ".new", "w", newline="") as f:
            w = csv.DictWriter(f, COLUMNS, lineterminator="\n")
            w.writeheader()
            w.writerows(self.rows)
        os.replace(self.out + ".new", self.out)


def read_config(path, objects):
    """The config, in which each of `objects` must have entries; a mistake in it ends the program with a message."""
    with open(path) as f:
        config = json.load(f)
    for key in objects:
        if not isinstance(config.get(key), dict) or not config[key]:
            sys.exit("%s: \"%s\" must be an object with at least one entry" % (path, key))
    config["build"] = os.path.abspath(config.get("build", os.path.join(HERE, "..", "build")))
    return config


def arguments(about, cases, runs, minutes, late, more=None):
    """`run CONFIG …` or `report CSV`; more adds options of its own to `run`, late says what becomes of it after the minutes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")  # noqa: E731
    sub = parser.add_subparsers(dest="what", required=True)
    run = sub.add_parser("run", help="measure and report")
    run.add_argument("config")
    run.add_argument("--out", help="default: a file in bench/results, named after the machine")
    run.add_argument("--only", type=names, help="cases: " + ", ".join(cases))
    run.add_argument("--models", type=names)
    run.add_argument("--engines", type=names)
    run.add_argument("--runs", type=int, default=runs)
    run.add_argument("--minutes", type=float, default=minutes, help=late)
    run.add_argument("--threads", type=int)
    if more:
        more(run)
    sub.add_parser("report", help="what is written from a CSV, again").add_argument("csv")
    return parser.parse_args()
