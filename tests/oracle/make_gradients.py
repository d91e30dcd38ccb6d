# SPDX-License-Identifier: Apache-2.0
"""PyTorch's gradients of every parameter of the tiny f32 checkpoints, for tests/test_training.c.

tests/golden/gradients/<model>.safetensors: ids, targets [N] i32, weights [N] f32, lengths [segments] i32, loss [1], and for each
parameter <name>.grad, at most KEEP elements of it (every stride-th, from the first), with the whole gradient's norm as <name>.norm.
The loss is the weighted sum of -log p of the targets; segments are run one by one.
"""
import os

from common import *

MODELS = ["llama-f32", "qwen2-f32", "qwen3-f32", "gemma3-text-f32"]
KEEP = 300


def gradients(name):
    model = load(os.path.join(GOLDEN, "models", name), torch.float32)
    lengths = [23, 1, 14]  # beyond the window of the tiny Gemma
    ids, targets = prompt(sum(lengths), 7), prompt(sum(lengths), 8)
    weights = [0.0 if i % 5 == 2 else 0.25 + (i % 3) * 0.5 for i in range(len(ids))]
    out = {
        "ids": torch.tensor(ids, dtype=torch.int32), "targets": torch.tensor(targets, dtype=torch.int32),
        "weights": torch.tensor(weights), "lengths": torch.tensor(lengths, dtype=torch.int32),
    }
    with torch.enable_grad():
        for p in model.parameters():
            p.requires_grad_(True)
        loss, at = 0, 0
        for n in lengths:
            logits = model(input_ids=torch.tensor([ids[at : at + n]]), use_cache=False).logits[0].float()
            lost = torch.nn.functional.cross_entropy(logits, torch.tensor(targets[at : at + n]), reduction="none")
            loss = loss + (lost * torch.tensor(weights[at : at + n])).sum()
            at += n
        loss.backward()
    out["loss"] = loss.detach().reshape(1)
    for key, p in model.named_parameters():
        g = p.grad.flatten()
        stride = max(1, -(-g.numel() // KEEP))
        out[f"{key}.grad"] = g[::stride].clone()
        out[f"{key}.norm"] = g.norm().reshape(1)
    os.makedirs(os.path.join(GOLDEN, "gradients"), exist_ok=True)
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(GOLDEN, "gradients", f"{name}.safetensors"))
    print(f"{name:16} loss {float(loss):.4f}, {len(out)} tensors", flush=True)


if __name__ == "__main__":
    for m in MODELS:
        gradients(m)
