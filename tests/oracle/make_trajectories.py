# SPDX-License-Identifier: Apache-2.0
"""Ten steps of fine-tuning with PyTorch and peft on the tiny checkpoints, for tests/test_trainer.c.

tests/golden/trajectories/<case>.safetensors: ids [steps, rows, T+1] i32, losses [steps] f32 (mean over all targets, before each update) and
the adapters' initial values as init.<name>, in mlx-lm's form. AdamW, cosine schedule after two steps of warm-up, clipping by global norm.
"""
import math
import os
import tempfile

from common import *
from peft import LoraConfig, get_peft_model

STEPS, ROWS, T, RATE, WARMUP, DECAY = 10, 2, 16, 5e-3, 2, 10


def rate(step):
    if step < WARMUP:
        return RATE * step / WARMUP
    return 0.5 * (1 + math.cos(math.pi * min((step - WARMUP) / DECAY, 1))) * RATE


def run(name, base, full=False, dora=False):
    path = os.path.join(GOLDEN, base)
    with tempfile.TemporaryDirectory() as tmp:
        if "quantization" in read_json(os.path.join(path, "config.json")):
            dequantised_folder(path, os.path.join(tmp, "dense"), "float32")
            path = os.path.join(tmp, "dense")
        model = load(path, torch.float32)
    out = {}
    if not full:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], use_dora=dora))
        gen = torch.Generator().manual_seed(3)
        for key, p in model.named_parameters():
            if "lora_magnitude" in key:
                continue  # stays the lengths of the weight's own rows, as ours
            if "lora_" in key:
                p.data.copy_(torch.randn(p.shape, generator=gen) * 0.1)
                ours = key.removeprefix("base_model.model.").replace(".lora_A.default.weight", ".lora_a").replace(".lora_B.default.weight", ".lora_b")
                out[f"init.{ours}"] = p.data.T.contiguous().clone()
    rng = random.Random(11)
    ids = torch.tensor([[[rng.randrange(3, VOCAB) for _ in range(T + 1)] for _ in range(ROWS)] for _ in range(STEPS)])
    losses = []
    with torch.enable_grad():
        for p in model.parameters():
            p.requires_grad_(full or p.requires_grad)
        trained = [p for n, p in model.named_parameters() if full or "lora_" in n]
        for p in trained:
            p.requires_grad_(True)
        opt = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
        for step in range(STEPS):
            for group in opt.param_groups:
                group["lr"] = rate(step)
            logits = model(input_ids=ids[step, :, :-1], use_cache=False).logits.float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[step, :, 1:].reshape(-1))
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            opt.step()
            losses.append(float(loss.detach()))
    out |= {"ids": ids.to(torch.int32), "losses": torch.tensor(losses)}
    os.makedirs(os.path.join(GOLDEN, "trajectories"), exist_ok=True)
    save_file(out, os.path.join(GOLDEN, "trajectories", f"{name}.safetensors"))
    print(f"{name:16} loss {losses[0]:.4f} → {losses[-1]:.4f}", flush=True)


if __name__ == "__main__":
    run("lora-llama", "models/llama-f32")
    run("lora-gemma3", "models/gemma3-text-f32")
    run("qlora-llama", "quant/llama-4bit-float32")
    run("dora-qwen2", "models/qwen2-f32", dora=True)
    run("full-qwen2", "models/qwen2-f32", full=True)
