# SPDX-License-Identifier: Apache-2.0
"""Compares `mica classify` with transformers in f32; exits 1 if any model is worse than allowed.

    compare_classify.py build/mica MODEL... [--texts 200] [--speed]

For each model: log-probabilities of four labels, one of them of several tokens, after each of 200 short texts in a prompt; mica against
transformers f32 on the same (dequantised) weights, beside transformers' own bf16 against its f32. Allowed: a mean error of 1.25 times that of
bf16. --speed only measures: texts a second of mica (from its own report), and of a loop in transformers bf16 and f32 that computes each
text's whole prompt once and no more (enough for labels of one token).
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time

import torch
from reference import Reference

LABELS = ["technical", "creative", "science fiction", "casual"]
PROMPT = "Classify this text into exactly one category: technical, creative, science fiction, casual.\n\nText: {text}\n\nCategory:"
SUBJECTS = ["The compiler", "My neighbour", "A lonely lighthouse keeper", "The starship's engine", "This recipe", "The database index",
            "An old sailor", "The robot council", "Our weekend trip", "The network cable"]
ENDS = ["reports an error in line 42 of the parser.", "sang quietly while the snow fell on the harbour.",
        "jumped through the gate near Proxima Centauri.", "was fun, we should do that again soon!",
        "needs three eggs and a pinch of salt.", "is rebuilt every night at two o'clock.",
        "dreamt of whales that carry cities.", "voted to let the humans keep Mars.",
        "cost less than I thought, to be honest.", "drops one packet in a thousand.",
        "allocates memory in blocks of four kilobytes.", "painted the door a shade of blue that has no name.",
        "woke after nine hundred years of sleep.", "made everyone laugh at lunch.",
        "runs on a virtual machine with two cores.", "wrote letters to the moon.",
        "folds space around itself.", "had a great cup of coffee.", "sorts the keys before it writes them.",
        "lost a shoe on the way to the ball."]


def texts(count):
    return [f"{SUBJECTS[i % len(SUBJECTS)]} {ENDS[i // len(SUBJECTS) % len(ENDS)]}" for i in range(count)]


def run_mica(binary, path, lines):
    data = "".join(json.dumps({"text": t}) + "\n" for t in lines)
    done = subprocess.run([binary, "classify", path, "--jsonl", "--labels", ",".join(LABELS), "--prompt", PROMPT], input=data.encode(),
                          capture_output=True)
    if done.returncode:
        raise SystemExit(f"{path}: exit {done.returncode}: {done.stderr.decode()[-500:]}")
    rows = [json.loads(line)["logprobs"] for line in done.stdout.decode().splitlines()]
    speed = float(re.search(r"([0-9.]+) texts/s", done.stderr.decode()).group(1))
    return torch.tensor([[r[name] for name in LABELS] for r in rows], dtype=torch.float64), speed


def tokens(tok, text):
    """The prompt's ids, and those that each label adds to them."""
    prompt = PROMPT.replace("{text}", text)
    ids = tok(prompt)["input_ids"]
    labels = []
    for name in LABELS:
        both = tok(f"{prompt} {name}")["input_ids"]
        assert both[: len(ids)] == ids, "the label changes the prompt's tokens"
        labels.append(both[len(ids):])
    return ids, labels


def in_groups(sequences, most=16):
    """Indices of sequences of equal lengths, so many together."""
    by_length = {}
    for i, ids in enumerate(sequences):
        by_length.setdefault(len(ids), []).append(i)
    for group in by_length.values():
        yield from (group[k : k + most] for k in range(0, len(group), most))


def last_logprobs(model, sequences, keep):
    """[len(sequences), keep, V] of the last tokens of each."""
    out = [None] * len(sequences)
    for group in in_groups(sequences):
        logits = model(input_ids=torch.tensor([sequences[i] for i in group]), use_cache=False, logits_to_keep=keep).logits
        for i, rows in zip(group, torch.log_softmax(logits.float(), dim=-1)):
            out[i] = rows.double()
    return out


def label_logprobs(model, encoded):
    """[texts, labels]: each label's tokens after the prompt; those of one token from one pass."""
    first = [rows[0] for rows in last_logprobs(model, [ids for ids, _ in encoded], 1)]
    out = torch.zeros(len(encoded), len(LABELS), dtype=torch.float64)
    for l in range(len(LABELS)):
        for i, (_, labels) in enumerate(encoded):
            out[i, l] = first[i][labels[l][0]]
        extra = len(encoded[0][1][l]) - 1
        if extra:
            more = last_logprobs(model, [ids + labels[l][:-1] for ids, labels in encoded], extra)
            for i, (_, labels) in enumerate(encoded):
                out[i, l] += sum(more[i][k, labels[l][k + 1]] for k in range(extra))
    return out


def speed_of(model, prompts):
    started = time.monotonic()
    for ids in prompts:
        model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=1)
    return len(prompts) / (time.monotonic() - started)


def measure(binary, path, lines):
    reference = Reference(path)
    tok = reference.tokenizer()
    prompts = [tokens(tok, t)[0] for t in lines]
    for dtype in ("bfloat16", "float32"):
        model = reference.model(dtype)
        speed_of(model, prompts[:2])
        _, ours = run_mica(binary, path, lines)
        theirs = speed_of(model, prompts)
        _, again = run_mica(binary, path, lines)
        print(f"{path}: mica {ours:.1f} and {again:.1f} texts/s, transformers {dtype} {theirs:.1f}: x {min(ours, again) / theirs:.2f}", flush=True)


def compare(binary, path, lines):
    reference = Reference(path)
    tok = reference.tokenizer()
    encoded = [tokens(tok, t) for t in lines]
    exact = label_logprobs(reference.model("float32"), encoded)
    rough = label_logprobs(reference.model("bfloat16"), encoded)
    ours, speed = run_mica(binary, path, lines)
    allowed, error = (rough - exact).abs(), (ours - exact).abs()
    same = (ours.argmax(1) == exact.argmax(1)).double().mean()
    ratio = error.mean() / allowed.mean()
    print(f"{path}: {len(lines)} texts: mean |delta log p| {error.mean():.3e} (max {error.max():.2e}), transformers bf16 "
          f"{allowed.mean():.3e} (max {allowed.max():.2e}): {ratio:.2f}, allowed 1.25; same label {100 * same:.1f} %; {speed:.1f} texts/s", flush=True)
    return ratio <= 1.25


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = texts(options.texts)
    if options.speed:
        for path in options.models:
            measure(options.binary, path, lines)
        return 0
    return 0 if all([compare(options.binary, path, lines) for path in options.models]) else 1


sys.exit(main())
