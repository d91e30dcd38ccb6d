#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mica beside other programs that run language models on CPUs: the same shapes, interleaved, on the same machine.

    bench/peers.py run peers.json [--out FILE.csv] [--only case,…] [--models …] [--engines …] [--runs 5] [--minutes 25]
    bench/peers.py report FILE.csv         again writes FILE.md and FILE.svg from FILE.csv

`run` measures the limits of the machine, then every case of every model: one process per engine and run, in the order
A B C A B C …; it writes one CSV (each run with its exact command), a Markdown table and a plot. An engine whose best run
is far below the best peer's is not run to the end of a case (--all: run it anyway). See bench/README.md.
"""
import json
import os
import re
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import peers_report  # noqa: E402
import peers_run  # noqa: E402
from peers_run import say  # noqa: E402

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


# ---- running -------------------------------------------------------------------------------------------------
class Bench(peers_run.Bench):
    def bandwidth(self, model, case, run):
        """Neighbours on the host change the bandwidth from minute to minute: it is measured again beside every such run."""
        command, limits = self.bench_limits("--read")
        for metric, part in CASES[case][3].items():
            if part == "decode":
                self.add(model, "read " + metric, "machine", run, limits[("read", "", self.threads)][0], "GB/s", command)

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

    def all(self):
        started = time.time()
        self.limits()
        todo = self.todo(DEFAULT_CASES)
        for i, (model, case) in enumerate(todo):
            left = started + 60 * self.args.minutes - time.time()
            say("%s %s (%d of %d, %.0f s left)" % (model, case, i + 1, len(todo), left))
            self.case(model, case, time.time() + left / (len(todo) - i) * 1.5)
        self.save()
        say("%s after %.0f s" % (self.out, time.time() - started))


def read_config(path):
    """The config with relative paths made absolute (from where the script was started); a mistake in it ends the program with a message."""
    config = peers_run.read_config(path, ("engines", "models"))
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
    args = peers_run.arguments(__doc__, CASES, runs=5, minutes=25, late="after these, cases get fewer runs (never fewer than 3)",
                               more=lambda run: run.add_argument("--all", action="store_true", help="run hopeless engines to the end too"))
    if args.what == "run":
        bench = Bench(read_config(args.config), args)
        bench.all()
    peers_report.write(bench.out if args.what == "run" else args.csv)


if __name__ == "__main__":
    main()
