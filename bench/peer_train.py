#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning with PyTorch, transformers and peft, for train_peers.py: LoRA on q_proj and v_proj of a model in bf16, or all weights in f32, AdamW,
batches of some rows of the text in DATA/train.jsonl. Prints one line of JSON: {"tokens_per_second": [of each step], "loss": [of each]}.

    peer_train.py FOLDER DATA --rows 2 --tokens 256 --steps 4 --threads N [--checkpoint] [--full]
"""
import argparse
import json
import os
import time

import tokenizers
import torch
import transformers
from peft import LoraConfig, get_peft_model


def batches(folder, data, rows, tokens):
    """[rows, tokens] ids at a time, in file order, for ever; each line's beginning."""
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(data, "train.jsonl"), encoding="utf-8") as f:
        lines = [tokenizer.encode(json.loads(line)["text"]).ids[:tokens] for line in f]
    at = 0
    while True:
        yield torch.tensor([lines[(at + i) % len(lines)] for i in range(rows)])
        at += rows


def load(args):
    dtype = torch.float32 if args.full else torch.bfloat16
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)
    model.config.use_cache = False
    if not args.full:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=160, target_modules=["q_proj", "v_proj"]))
    if args.checkpoint:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    for name in ("rows", "tokens", "steps", "threads"):
        parser.add_argument("--" + name, type=int, required=True)
    for name in ("checkpoint", "full"):
        parser.add_argument("--" + name, action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = load(args)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    source, speeds, losses = batches(args.model, args.data, args.rows, args.tokens), [], []
    for _ in range(args.steps):
        ids = next(source)
        started = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        speeds.append(ids.numel() / (time.perf_counter() - started))
    print(json.dumps({"tokens_per_second": speeds, "loss": losses}))


if __name__ == "__main__":
    main()
