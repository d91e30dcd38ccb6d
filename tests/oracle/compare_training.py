# SPDX-License-Identifier: Apache-2.0
"""LoRA on real weights and a real text, by mica and by PyTorch + peft: the same initial adapter, the same batches, AdamW, bf16; exits 1 if the
validation losses at the end differ by more than 1 %.

    compare_training.py build/mica TEXT MODEL... [--steps 200] [--tokens 128] [--rate 1e-4] [--threads 1]

TEXT is any long prose; nine of ten pieces of it are trained on, two of them a step, the others validate. MODEL is a folder in bf16.
"""
import argparse
import math
import subprocess
import sys
import tempfile

import tokenizers
from common import *
from peft import LoraConfig, get_peft_model

ROWS, VALIDATION = 2, 24


def write_data(text, tokenizer, args, folder):
    """Pieces of the text, each longer than a row; ids [count, tokens + 1] of those that train and of those that validate."""
    size, out = 8 * args.tokens, {"train": [], "valid": []}
    for i in range(len(text) // size):
        ids = tokenizer.encode(text[i * size : (i + 1) * size]).ids
        part = "valid" if i % 10 == 9 else "train"
        if len(ids) > args.tokens and (part == "train" or len(out[part]) < VALIDATION):
            out[part].append((text[i * size : (i + 1) * size], ids[: args.tokens + 1]))
    for part, pieces in out.items():
        with open(os.path.join(folder, part + ".jsonl"), "w", encoding="utf-8") as f:
            f.writelines(json.dumps({"text": piece}) + "\n" for piece, _ in pieces)
        print(f"  {part}: {len(pieces)} pieces of {args.tokens} tokens")
    return {part: torch.tensor([ids for _, ids in pieces]) for part, pieces in out.items()}


def loss_of(model, ids):
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def validate(model, ids):
    with torch.no_grad():
        return float(torch.stack([loss_of(model, rows) for rows in ids.split(ROWS)]).mean())


def in_peft(folder, data, args, adapter):
    """(validation loss before, after; loss of each step); the initial adapter goes to the folder `adapter`."""
    torch.manual_seed(1)
    with torch.enable_grad():
        model = load(folder, torch.bfloat16)
        model.set_attn_implementation("sdpa")
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=160, target_modules=["q_proj", "v_proj"]))
        model.save_pretrained(adapter)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=args.rate, weight_decay=0.01)
        losses, before = [], validate(model, data["valid"])
        for step in range(args.steps):
            at = [(step * ROWS + i) % len(data["train"]) for i in range(ROWS)]
            loss = loss_of(model, data["train"][at])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
        return before, validate(model, data["valid"]), losses


def in_mica(binary, folder, data, args, adapter, out):
    command = [binary, "train", folder, "--data", data, "--adapter", out, "--init-adapter", adapter, "--targets", "q_proj,v_proj", "--layers", "-1", "--rank", "8",
               "--scale", "20", "--optimizer", "adamw", "--weight-decay", "0.01", "--lr", str(args.rate), "--clip", "1", "--iters", str(args.steps),
               "--batch-size", str(ROWS), "--max-seq", str(args.tokens + 1), "--no-shuffle", "--report-every", "1", "--val-every", str(args.steps),
               "--val-batches", "-1", "--save-every", "-1", "--threads", str(args.threads), "--json"]
    got = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    events = [json.loads(line) for line in got.splitlines()]
    validation = [e["loss"] for e in events if e["event"] == "validation"]
    return validation[0], validation[-1], [e["loss"] for e in events if e["event"] == "step"]


def compare(binary, folder, text, args):
    print(os.path.basename(folder.rstrip("/")), flush=True)
    with tempfile.TemporaryDirectory() as tmp:
        adapter = os.path.join(tmp, "first")
        data = write_data(text, tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json")), args, tmp)
        theirs = in_peft(folder, data, args, adapter)
        ours = in_mica(binary, folder, tmp, args, adapter, os.path.join(tmp, "out"))
    for name, (before, after, losses) in (("peft", theirs), ("mica", ours)):
        quarter = max(len(losses) // 4, 1)
        means = [sum(losses[i : i + quarter]) / quarter for i in range(0, len(losses) - quarter + 1, quarter)]
        print(f"  {name}  validation {before:.4f} → {after:.4f}  training, by quarters: {' '.join('%.4f' % m for m in means)}")
    apart, steps = abs(ours[1] / theirs[1] - 1), [abs(a - b) for a, b in zip(ours[2], theirs[2])]
    print(f"  validation losses differ by {100 * apart:.3f} %; steps by {sum(steps) / len(steps):.4f} on average, {max(steps):.4f} at most", flush=True)
    return len(ours[2]) == args.steps and math.isfinite(apart) and apart <= 0.01


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mica")
    parser.add_argument("text")
    parser.add_argument("models", nargs="+")
    for name, kind, value in (("steps", int, 200), ("tokens", int, 128), ("rate", float, 1e-4), ("threads", int, 1)):
        parser.add_argument("--" + name, type=kind, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with open(args.text, encoding="utf-8", errors="replace") as f:
        text = f.read()
    return 0 if all([compare(args.mica, folder, text, args) for folder in args.models]) else 1


if __name__ == "__main__":
    sys.exit(main())
