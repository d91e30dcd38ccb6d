# SPDX-License-Identifier: Apache-2.0
"""Shared by the oracle scripts: where golden files go, the tiny tokenizer, running transformers.

Everything here is deterministic: the same package versions give the same files.
"""
import glob
import json
import os
import random

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(os.path.dirname(HERE), "golden")
VOCAB = 288
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

torch.set_grad_enabled(False)


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def write_tokenizer(folder):
    """A byte-level BPE of VOCAB entries: 3 special, 256 bytes, the rest merges of common English pairs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    text = "the quick brown fox jumps over the lazy dog and then the other one is in the end not on the run "
    tok.train_from_iterator([text * 20, "int main(void) { return 0; }\n" * 20], trainer)
    assert tok.get_vocab_size() <= VOCAB, tok.get_vocab_size()
    tok.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    write_json(
        os.path.join(folder, "tokenizer_config.json"),
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    )


def randomise(model, seed):
    """Weights of a realistic scale: attention looks somewhere, logits have spread."""
    gen = torch.Generator().manual_seed(seed)

    def normal(shape, std):
        return torch.randn(shape, generator=gen, dtype=torch.float32) * std

    gemma = "gemma3" in model.config.model_type
    for name, p in model.named_parameters():
        if gemma and "embed_tokens" in name:
            # Embeddings are scaled by sqrt(hidden) and tied: kept small, or every token predicts itself.
            value = normal(p.shape, 0.5 / p.shape[1] ** 0.5)
        elif gemma and name.endswith(("model.norm.weight", "language_model.norm.weight")):
            value = 5.0 + normal(p.shape, 0.5)
        elif "norm" in name and name.endswith("weight"):
            # Gemma stores w of (1 + w); the q/k norms are larger so that attention is not flat.
            one = 0.0 if gemma else 1.0
            lift = 0.7 if ("q_norm" in name or "k_norm" in name) else 0.0
            value = one + lift + normal(p.shape, 0.2)
        elif name.endswith("bias"):
            value = normal(p.shape, 0.3)
        elif "embed_tokens" in name or "lm_head" in name:
            value = normal(p.shape, 2.5 / p.shape[1] ** 0.5)
        elif p.ndim == 2:
            gain = 2.0 if ("q_proj" in name or "k_proj" in name) else 1.3
            value = normal(p.shape, gain / p.shape[1] ** 0.5)
        else:
            value = normal(p.shape, 0.2)
        p.data.copy_(value.to(p.dtype))


def prompt(length, seed):
    rng = random.Random(seed)
    return [0] + [rng.randrange(3, VOCAB) for _ in range(length - 1)]


def logprobs(model, ids):
    """[T, V] f32 log-softmax of every position, in one forward pass without a cache."""
    out = model(input_ids=torch.tensor([ids]), use_cache=False)
    return torch.log_softmax(out.logits[0].float(), dim=-1).contiguous()


def greedy(model, ids, n):
    """n greedy tokens with the KV cache, never stopping; also by how much each token beat the runner-up."""
    chosen, margin, past = [], [], None
    step = torch.tensor([ids])
    for _ in range(n):
        out = model(input_ids=step, past_key_values=past, use_cache=True)
        past = out.past_key_values
        top = torch.topk(torch.log_softmax(out.logits[0, -1].float(), -1), 2)
        chosen.append(int(top.indices[0]))
        margin.append(float(top.values[0] - top.values[1]))
        step = torch.tensor([[chosen[-1]]])
    return torch.tensor(chosen, dtype=torch.int32), torch.tensor(margin, dtype=torch.float32)


def load(folder, dtype, cls=None):
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = (cls or AutoModelForCausalLM).from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model.eval()


def module_parameters(config, module):
    """How config.json says a module is quantised: the globals, unless it has an override of its own."""
    defaults = {"affine": (64, 4), "mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8)}
    q = config["quantization"]
    own = q.get(module, True)
    own = q if own is True else own
    mode = own.get("mode", "affine")
    return own.get("group_size", defaults[mode][0]), own.get("bits", defaults[mode][1]), mode


def dequantised_folder(folder, out, dtype):
    """A dense copy of an MLX folder for transformers; every weight exact in f32, or rounded to bf16."""
    import mlx.core as mx

    os.makedirs(out)
    config = read_json(os.path.join(folder, "config.json"))
    weights = {}
    for path in glob.glob(os.path.join(folder, "model*.safetensors")):
        weights.update(mx.load(path))
    dense = {}
    for name, w in weights.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" and f"{module}.scales" in weights:
            group, bits, mode = module_parameters(config, module)
            scales, biases = weights[f"{module}.scales"], weights.get(f"{module}.biases")
            if mode == "affine":
                scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
            w = mx.dequantize(w, scales, biases, group, bits, mode=mode, dtype=mx.float32)
        elif leaf in ("scales", "biases"):
            continue
        dense[name] = torch.from_numpy(np.array(w.astype(mx.float32))).to(TORCH_DTYPES[dtype])
    for key in ("quantization", "quantization_config"):
        config.pop(key, None)
    config["dtype"] = dtype
    write_json(os.path.join(out, "config.json"), config)
    save_file(dense, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})


def with_old_rope_fields(folder):
    """mlx-lm reads rope_theta, rope_scaling and sliding_window_pattern where transformers 5 writes rope_parameters."""
    path = os.path.join(folder, "config.json")
    config = read_json(path)
    rope = config.get("rope_parameters") or {}
    full = rope.get("full_attention", rope)
    if full:
        config.setdefault("rope_theta", full.get("rope_theta", 10000.0))
    if full.get("rope_type", "default") != "default":
        config.setdefault("rope_scaling", {k: v for k, v in full.items() if k != "rope_theta"})
    if "sliding_attention" in rope:
        config.setdefault("rope_local_base_freq", rope["sliding_attention"]["rope_theta"])
        config.setdefault("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
    write_json(path, config)


def mean_abs(a, b):
    return float((a - b).abs().mean())


def save_expected(folder, tensors):
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(folder, "expected.safetensors"))


def folder_bytes(path):
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(path) for f in fs)


__all__ = [n for n in dir() if not n.startswith("_")]
