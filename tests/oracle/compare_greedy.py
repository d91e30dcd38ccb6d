# SPDX-License-Identifier: Apache-2.0
"""Compares greedy tokens of `mica generate` with transformers f32; exits 1 on a mismatch that rounding does not explain.

    compare_greedy.py build/mica MODEL... [-n 64] [--level avx2]

mica continues each prompt by n tokens; transformers f32 then reads prompt and continuation in one pass and names its own
choice at every position (given mica's tokens so far, so one early tie does not hide what follows; dynamic and longrope
models are read token by token with a cache). A mismatch is listed
with the margin of the f32 winner over mica's token, and with how far transformers' own bf16 moves that margin; it is
explained when the margin is at most twice the largest such move over the ten likeliest tokens of that position (or twice
the ninth decile of those over all positions, if that is more), or, for f32 checkpoints, below 1e-3.
"""
import argparse
import sys

import torch
from reference import Reference, comma, continued, run_mica


def rounding(rough, exact):
    """Largest |bf16 - f32| of log p over the ten likeliest tokens, per position [T]."""
    where = exact.topk(10, dim=-1).indices
    return (rough.gather(1, where) - exact.gather(1, where)).abs().amax(-1)


def compare(binary, path, options):
    reference = Reference(path)
    env = {"MICA_CPU": options.level} if options.level else {}
    prompts = [ids for ids in reference.prompts() if ids][: options.prompts or None]
    runs = []
    for ids in prompts:
        got = run_mica(
            binary, ["generate", path, "--json", "--ids", comma(ids), "-n", str(options.n), "--ignore-eos", "--temp", "0",
                     "--threads", str(options.threads)], env
        )
        assert got["prompt_ids"] == list(ids), "prompt_ids differ"
        assert len(got["ids"]) == options.n, f"{len(got['ids'])} tokens for -n {options.n}: {got['finish_reason']}"
        runs.append(got["ids"])
    exact = [continued(reference.model("float32"), p, r) for p, r in zip(prompts, runs)]
    rough = [continued(reference.model("bfloat16"), p, r) for p, r in zip(prompts, runs)]
    same = bf16_same = unexplained = total = 0
    lines = []
    noises = [rounding(r, e) for r, e in zip(rough, exact)]
    common = float(torch.cat(noises).quantile(0.9))
    for k, run in enumerate(runs):
        noise = noises[k]
        for i, token in enumerate(run):
            winner = int(exact[k][i].argmax())
            total += 1
            same += winner == token
            bf16_same += winner == int(rough[k][i].argmax())
            if winner == token:
                continue
            margin = float(exact[k][i, winner] - exact[k][i, token])
            allowed = 1e-3 if reference.kind == "f32" else 2 * max(float(noise[i]), common)
            unexplained += margin > allowed
            lines.append(f"    prompt {k} token {i}: mica {token}, f32 {winner}, margin {margin:.4f}, bf16 moves {float(noise[i]):.4f}"
                         + ("" if margin <= allowed else "  <-- NOT ROUNDING"))
    print(f"{path} ({reference.kind}): {len(prompts)} prompts x {options.n}: {same} of {total} as transformers f32"
          f" (its bf16: {bf16_same}); {len(lines)} mismatches, {unexplained} unexplained")
    print("\n".join(lines[: options.show]), flush=True)
    return unexplained


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mica")
    parser.add_argument("models", nargs="+")
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--level", default="")
    parser.add_argument("--prompts", type=int, default=0, help="only the first so many")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show", type=int, default=40)
    options = parser.parse_args()
    bad = sum(compare(options.mica, m, options) for m in options.models)
    print(f"{bad} unexplained")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
