# SPDX-License-Identifier: Apache-2.0
"""Compares `mica score` with transformers in f32; exits 1 if any model is worse than allowed.

    compare_logits.py build/mica MODEL... [--levels ref,avx2,avx512] [--top 50] [--device NAME]

For each model (HF folder, MLX folder, GGUF) and each prompt: |delta log p| of the token that follows, and over the --top
most likely tokens at every position, mica against transformers f32 on the same (dequantised) weights, beside
transformers' own bf16 against its f32. Allowed: for f32 checkpoints a mean of 1e-3, otherwise 1.25 times the bf16 error.
"""
import argparse
import sys

import torch
from reference import Reference, comma, logprobs, run_mica


def mica_errors(binary, path, ids, exact, top, env, extra):
    """(next-token errors [T-1], errors over mica's top list) of one prompt."""
    got = run_mica(binary, ["score", path, "--json", "--ids", comma(ids), "--top", str(top), *extra], env)
    assert got["ids"] == list(ids), "ids differ"
    assert got["logprobs"][0] is None and len(got["logprobs"]) == len(ids) and len(got["top"]) == len(ids), "shape"
    following = exact[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    next_error = (torch.tensor(got["logprobs"][1:], dtype=torch.float64) - following.double()).abs()
    rows = []
    for i, entries in enumerate(got["top"]):
        where = torch.tensor([e[0] for e in entries])
        rows.append((torch.tensor([e[1] for e in entries], dtype=torch.float64) - exact[i, where].double()).abs())
    return next_error, torch.cat(rows)


def bf16_errors(rough, exact, ids, top):
    following = torch.tensor(ids[1:])
    at = torch.arange(len(ids) - 1)
    where = exact.topk(min(top, exact.shape[1]), dim=-1).indices
    delta = (rough.gather(1, where).double() - exact.gather(1, where).double()).abs()
    return (rough[at, following].double() - exact[at, following].double()).abs(), delta.flatten()


def compare(binary, path, options):
    reference = Reference(path)
    prompts = reference.prompts()[: options.prompts or None]
    exact = [logprobs(reference.model("float32"), ids) for ids in prompts]
    rough = [logprobs(reference.model("bfloat16"), ids) for ids in prompts]
    pairs = [bf16_errors(r, e, ids, options.top) for r, e, ids in zip(rough, exact, prompts)]
    del rough
    base_next, base_top = (torch.cat(x) for x in zip(*pairs))
    print(f"{path} ({reference.kind}): {len(prompts)} prompts, {sum(map(len, prompts))} tokens")
    print(f"  {'transformers bf16':18} next {base_next.mean():.3e} (max {base_next.max():.2e})  top {base_top.mean():.3e}")
    bad = 0
    for level in options.levels.split(","):
        env = {"MICA_CPU": level} if level else {}
        extra = ["--device", options.device] if options.device else []
        pairs = [mica_errors(binary, path, ids, e, options.top, env, extra) for ids, e in zip(prompts, exact)]
        error_next, error_top = (torch.cat(x) for x in zip(*pairs))
        if reference.kind == "f32":
            good = error_next.mean() <= 1e-3 and error_top.mean() <= 1e-3
            verdict = "allowed 1e-3"
        else:
            ratio = error_next.mean() / base_next.mean()
            ratio_top = error_top.mean() / base_top.mean()
            good = ratio <= 1.25 and ratio_top <= 1.25
            verdict = f"ratio {ratio:.2f} next, {ratio_top:.2f} top"
        print(f"  {'mica ' + (level or 'default'):18} next {error_next.mean():.3e} (max {error_next.max():.2e})"
              f"  top {error_top.mean():.3e}  {verdict}{'' if good else '  <-- WORSE THAN ALLOWED'}", flush=True)
        bad += not good
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mica")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--levels", default="", help="values of MICA_CPU to run, comma separated")
    parser.add_argument("--device", default="")
    parser.add_argument("--top", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=0, help="only the first so many")
    options = parser.parse_args()
    bad = sum(compare(options.mica, m, options) for m in options.models)
    print(f"{bad} beyond the allowance")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
