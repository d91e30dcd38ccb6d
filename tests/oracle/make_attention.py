# SPDX-License-Identifier: Apache-2.0
"""Writes golden/attention/NAME.safetensors for some tiny models of golden/models: input_ids [T], and what transformers' attention sees of them
after norms and rotation, q [L, H, T, Dh] and k [L, Hkv, T, Dh], f32. In bf16 models the arithmetic is bf16; q32 and k32 are then those of the
same weights in f32, to measure both against.
"""
import importlib
import os

import torch
from common import GOLDEN, load, prompt
from safetensors.torch import save_file

MODELS = {"llama-f32": "llama", "gemma3-text-f32": "gemma3", "qwen3-bf16": "qwen3", "qwen2-f32": "qwen2"}


def queries_and_keys(path, family, ids, dtype):
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    original, seen = module.apply_rotary_pos_emb, []

    def watch(*arguments, **options):
        q, k = original(*arguments, **options)
        seen.append((q[0].float().clone(), k[0].float().clone()))
        return q, k

    module.apply_rotary_pos_emb = watch
    try:
        load(path, dtype)(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        module.apply_rotary_pos_emb = original
    return torch.stack([q for q, _ in seen]), torch.stack([k for _, k in seen])


def main():
    folder = os.path.join(GOLDEN, "attention")
    os.makedirs(folder, exist_ok=True)
    for name, family in MODELS.items():
        path, ids = os.path.join(GOLDEN, "models", name), prompt(20, 77)
        bf16 = name.endswith("bf16")
        q, k = queries_and_keys(path, family, ids, torch.bfloat16 if bf16 else torch.float32)
        tensors = {"input_ids": torch.tensor(ids, dtype=torch.int32), "q": q, "k": k}
        if bf16:
            tensors["q32"], tensors["k32"] = queries_and_keys(path, family, ids, torch.float32)
        save_file({n: t.contiguous() for n, t in tensors.items()}, os.path.join(folder, f"{name}.safetensors"))
        print(name, {n: list(t.shape) for n, t in tensors.items()})


main()
