# SPDX-License-Identifier: Apache-2.0
"""Adapters written by mlx-lm and peft (and one in go-mlx's form) for the tiny checkpoints, and what the adapted models compute.

tests/golden/adapters/<name>/ holds the adapter as its tool writes it, base.txt (the checkpoint's folder under tests/golden) and
expected.safetensors: input_ids [T] i32 and logprobs [T,V] f32 of the tool itself, in f32 (a quantised base: dequantised in f32).
"""
import os
import shutil
import tempfile

import mlx.core as mx
import mlx.utils
from common import *
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load as mlx_load

mx.set_default_device(mx.cpu)
OUT = os.path.join(GOLDEN, "adapters")
IDS = prompt(20, 5)


def new_folder(name, base):
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(os.path.join(folder, "base.txt"), "w", encoding="utf-8") as f:
        f.write(base + "\n")
    return folder


def finish(folder, values, before):
    print(f"{os.path.basename(folder):20} changes log-probabilities by {mean_abs(values, before):.3f}", flush=True)
    save_expected(folder, {"input_ids": torch.tensor(IDS, dtype=torch.int32), "logprobs": values})


def from_mlx(logits):
    return torch.log_softmax(torch.from_numpy(np.array(logits.astype(mx.float32)))[0], -1)


def mlx_case(name, base, kind, keys, num_layers=-1, rank=4, scale=3.0):
    """An adapter with random matrices. A quantised base is computed by mlx from its dequantised copy."""
    folder = new_folder(name, base)
    path = os.path.join(GOLDEN, base)
    parameters = {"rank": rank, "scale": scale, "dropout": 0.0, "keys": keys}
    with tempfile.TemporaryDirectory() as tmp:
        copy = os.path.join(tmp, "dense")
        if "quantization" in read_json(os.path.join(path, "config.json")):
            dequantised_folder(path, copy, "float32")
        else:
            shutil.copytree(path, copy)
        os.path.exists(os.path.join(copy, "expected.safetensors")) and os.remove(os.path.join(copy, "expected.safetensors"))
        if not os.path.exists(os.path.join(copy, "tokenizer.json")):
            write_tokenizer(copy)
        with_old_rope_fields(copy)
        model, _ = mlx_load(copy)
        before = from_mlx(model(mx.array([IDS])))
        model.freeze()
        linear_to_lora_layers(model, len(model.layers) if num_layers < 0 else num_layers, parameters, use_dora=kind == "dora")
        gen = torch.Generator().manual_seed(len(name))
        tensors = {}
        for key, value in mlx.utils.tree_flatten(model.trainable_parameters()):
            noise = torch.randn(tuple(value.shape), generator=gen).numpy()
            spread = 0.1 if not key.endswith(".m") else 0.2
            tensors[key] = mx.array(noise * spread) + (value if key.endswith(".m") else 0)
        model.load_weights(list(tensors.items()), strict=False)
        finish(folder, from_mlx(model(mx.array([IDS]))), before)
    mx.save_safetensors(os.path.join(folder, "adapters.safetensors"), tensors)
    write_json(os.path.join(folder, "adapter_config.json"), {"fine_tune_type": kind, "num_layers": num_layers, "lora_parameters": parameters})


def peft_case(name, base, **options):
    from peft import LoraConfig, get_peft_model

    folder = new_folder(name, base)
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(GOLDEN, base)
        if "quantization" in read_json(os.path.join(path, "config.json")):
            dequantised_folder(path, os.path.join(tmp, "dense"), "float32")
            path = os.path.join(tmp, "dense")
        model = load(path, torch.float32)
    before = logprobs(model, IDS)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    gen = torch.Generator().manual_seed(len(name))
    for key, p in model.named_parameters():
        if "lora_magnitude" in key:
            p.data.mul_(1 + 0.1 * torch.randn(p.shape, generator=gen))
        elif "lora_" in key:
            p.data.copy_(torch.randn(p.shape, generator=gen) * 0.1)
    finish(folder, logprobs(model.eval(), IDS), before)
    model.save_pretrained(folder)
    for junk in ("README.md",):
        os.remove(os.path.join(folder, junk))
    path = os.path.join(folder, "adapter_config.json")
    config = read_json(path)
    config["base_model_name_or_path"] = base
    write_json(path, config)


def go_mlx_case(name, base):
    """q_proj and v_proj, rank 8, alpha 16: the tensors of a peft adapter under go-mlx's names."""
    with tempfile.TemporaryDirectory() as tmp:
        global OUT
        own, OUT = OUT, tmp
        peft_case(name, base, r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
        OUT = own
        folder = new_folder(name, base)
        made = os.path.join(tmp, name)
        shutil.copy(os.path.join(made, "expected.safetensors"), folder)
        tensors = load_file(os.path.join(made, "adapter_model.safetensors"))
    renamed = {
        k.removeprefix("base_model.model.").replace(".lora_A.weight", ".lora_a").replace(".lora_B.weight", ".lora_b"): v.contiguous()
        for k, v in tensors.items()
    }
    save_file(renamed, os.path.join(folder, "adapters.safetensors"))


if __name__ == "__main__":
    every = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    mlx_case("mlx-lora", "models/llama-f32", "lora", every)
    mlx_case("mlx-lora-last", "models/llama-f32", "lora", ["self_attn.q_proj", "self_attn.v_proj"], num_layers=1)
    mlx_case("mlx-dora-bias", "models/qwen2-f32", "dora", every)
    mlx_case("mlx-embedding", "quant/llama-4bit-float32", "lora", ["embed_tokens", "model.embed_tokens", "self_attn.q_proj"])
    mlx_case("mlx-qlora", "quant/llama-4bit-float32", "lora", every)
    mlx_case("mlx-qdora", "quant/llama-4bit-float32", "dora", every)
    peft_case("peft-lora", "models/qwen3-f32", r=4, lora_alpha=8, target_modules="all-linear", alpha_pattern={"q_proj": 24})
    peft_case("peft-rslora", "models/llama-f32", r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "down_proj"])
    peft_case("peft-dora", "models/qwen2-f32", r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj", "v_proj", "up_proj"])
    peft_case("peft-embedding", "models/gemma3-text-f32", r=4, lora_alpha=8, target_modules=["embed_tokens", "v_proj"])
    peft_case("peft-embedding-q", "quant/llama-4bit-float32", r=4, lora_alpha=8, target_modules=["embed_tokens", "down_proj"])
    peft_case("peft-head", "models/llama-f32", r=4, lora_alpha=8, target_modules=["lm_head", "o_proj"])
    peft_case("peft-head-dora", "models/qwen3-f32", r=4, lora_alpha=8, use_dora=True, target_modules=["lm_head", "q_proj"])
    go_mlx_case("go-mlx", "models/gemma3-text-f32")
