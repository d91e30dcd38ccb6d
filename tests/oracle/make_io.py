# SPDX-License-Identifier: Apache-2.0
"""GGUF files for the io room: every tensor type, permuted biases, a SentencePiece tokenizer with a space prefix.

tests/golden/io/<name>.gguf with <name>.safetensors: for each module "<Hugging Face name>.weight" (and ".bias") in f32,
dequantised by the gguf package, llama's q and k rows put back in order as transformers does. "types": one layer per
type, holding q, k and up in that type. "llama-bias": biases, and Llama 3.1's frequency divisors. "spm": a "llama"
tokenizer; spm.tokens.json: texts and their ids by transformers' gguf_file.
"""
import json
import os

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from safetensors.torch import save_file

from common import GOLDEN

OUT = os.path.join(GOLDEN, "io")
TYPES = [T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
rng = np.random.default_rng(11)


def blocks(shape, kind):
    """Random weights in the given type: bytes as stored. K-quants cannot be made by the gguf package, so their blocks
    are random bits with sane f16 scales."""
    w = (rng.standard_normal(shape) * 0.5).astype(np.float32)
    if kind in (T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0):
        return gguf.quants.quantize(w, kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (*shape[:-1], shape[-1] // block, size), dtype=np.uint8)
    places = {T.Q2_K: (80, 82), T.Q3_K: (108,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,)}[kind]
    for at in places:
        d = (rng.standard_normal(data.shape[:-1]) * 0.01).astype(np.float16)
        data[..., at : at + 2] = d[..., None].view(np.uint8)
    return data.reshape(*shape[:-1], -1)


class File:
    def __init__(self, name, arch, **meta):
        self.path = os.path.join(OUT, name + ".gguf")
        self.writer = gguf.GGUFWriter(self.path, arch)
        self.arch, self.name, self.heads, self.expected = arch, name, {}, {}
        w, m = self.writer, {"layers": 1, "hidden": 64, "ffn": 32, "heads": 2, "kv": 1, "head_dim": 32, **meta}
        w.add_block_count(m["layers"])
        w.add_context_length(128)
        w.add_embedding_length(m["hidden"])
        w.add_feed_forward_length(m["ffn"])
        w.add_head_count(m["heads"])
        w.add_head_count_kv(m["kv"])
        w.add_key_length(m["head_dim"])
        w.add_layer_norm_rms_eps(1e-5)
        w.add_rope_freq_base(20000.0)
        self.m = m

    def add(self, name, hf, shape, kind=T.F32, heads=0):
        data = blocks(shape, kind)
        self.writer.add_tensor(name, data, raw_dtype=kind)
        w = gguf.quants.dequantize(data, kind).reshape(shape).astype(np.float32)
        if heads:
            w = w.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(2, 1).reshape(shape)
        self.expected[hf] = torch.from_numpy(np.ascontiguousarray(w))

    def close(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        if self.expected:
            save_file(self.expected, self.path.replace(".gguf", ".safetensors"))


def make_types():
    f = File("types", "llama", layers=len(TYPES), hidden=256, heads=2, kv=1, head_dim=4, ffn=2)
    f.add("token_embd.weight", "model.embed_tokens.weight", (3, 256), T.Q8_0)
    f.add("output_norm.weight", "model.norm.weight", (256,))
    for i, kind in enumerate(TYPES):
        p, q = f"blk.{i}.", f"model.layers.{i}."
        f.add(p + "attn_q.weight", q + "self_attn.q_proj.weight", (8, 256), kind, heads=2)
        f.add(p + "attn_k.weight", q + "self_attn.k_proj.weight", (4, 256), kind, heads=1)
        f.add(p + "ffn_up.weight", q + "mlp.up_proj.weight", (2, 256), kind)
    # A scale whose -128 fold overflows f16: the triple must fall back to f32.
    big = np.full((1, 34), 3, np.uint8)
    big[:, :2] = np.array([600.0], np.float16).view(np.uint8)
    data = np.repeat(big, 8, axis=0).reshape(1, -1)
    f.writer.add_tensor("output.weight", data, raw_dtype=T.Q8_0)
    f.expected["lm_head.weight"] = torch.from_numpy(gguf.quants.dequantize(data, T.Q8_0).reshape(1, 256).astype(np.float32))
    f.close()


def add_layers(f, biases):
    m = f.m
    D, F, q, k = m["hidden"], m["ffn"], m["heads"] * m["head_dim"], m["kv"] * m["head_dim"]
    f.add("token_embd.weight", "model.embed_tokens.weight", (40, D), T.Q8_0)
    f.add("output_norm.weight", "model.norm.weight", (D,))
    for i in range(m["layers"]):
        p, h = f"blk.{i}.", f"model.layers.{i}."
        for name, hf, shape, heads in (
            ("attn_q", "self_attn.q_proj", (q, D), m["heads"]), ("attn_k", "self_attn.k_proj", (k, D), m["kv"]),
            ("attn_v", "self_attn.v_proj", (k, D), 0), ("attn_output", "self_attn.o_proj", (D, q), 0),
            ("ffn_gate", "mlp.gate_proj", (F, D), 0), ("ffn_up", "mlp.up_proj", (F, D), 0), ("ffn_down", "mlp.down_proj", (D, F), 0),
        ):
            f.add(p + name + ".weight", h + hf + ".weight", shape, T.Q4_0, heads=heads)
            if name in biases:
                f.add(p + name + ".bias", h + hf + ".bias", shape[:1], heads=heads)
        f.add(p + "attn_norm.weight", h + "input_layernorm.weight", (D,))
        f.add(p + "ffn_norm.weight", h + "post_attention_layernorm.weight", (D,))


def make_biases():
    f = File("llama-bias", "llama")
    add_layers(f, biases=("attn_q", "attn_k", "attn_v", "attn_output"))
    # Llama 3.1's frequency divisors: factor 8, low 1, high 4, trained on 8192.
    inv = 20000.0 ** (-np.arange(16) / 16)
    wave, low, high = 2 * np.pi / inv, 8192.0, 8192 / 4.0
    smooth = (8192 / wave - 1) / 3
    divisor = np.where(wave < high, 1, np.where(wave > low, 8, 1 / ((1 - smooth) / 8 + smooth)))
    f.writer.add_tensor("rope_freqs.weight", divisor.astype(np.float32))
    f.close()


TEXTS = ["", "the cat", " the  cat\n", "<|im_start|>the<|im_end|>", "<think>cat</think>", "caté ☃", "aaa", "t h e"]


def add_tokenizer(f, model, tokens, types, **kw):
    w = f.writer
    w.add_tokenizer_model(model)
    w.add_token_list(tokens)
    w.add_token_types(types)
    if "scores" in kw:
        w.add_token_scores(kw["scores"])
    if "merges" in kw:
        w.add_token_merges(kw["merges"])
    if "pre" in kw:
        w.add_tokenizer_pre(kw["pre"])
    w.add_bos_token_id(kw["bos"])
    w.add_eos_token_id(kw["eos"])
    if "unk" in kw:
        w.add_unk_token_id(kw["unk"])
    w.add_add_bos_token(kw.get("add_bos", False))
    w.add_chat_template("{{ messages[0]['content'] }}<|im_end|>")


def write_ids(name):
    from transformers import AutoTokenizer

    tok = AutoTokenizer.from_pretrained(OUT, gguf_file=name + ".gguf")
    with open(os.path.join(OUT, name + ".tokens.json"), "w") as out:
        json.dump([{"text": t, "ids": tok.encode(t)} for t in TEXTS], out, indent=0)


def make_tokenizer():
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    types = [2, 3, 3] + [6] * 256
    words = ["▁", "t", "h", "e", "c", "a", "th", "the", "▁the", "ca", "at", "cat", "▁cat", "aa", "<think>"]
    tokens, types = tokens + words, types + [1] * (len(words) - 1) + [4]
    scores = [0.0] * 259 + [-float(i % 9) for i in range(len(words))]
    f = File("spm", "llama")
    f.writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 64), np.float32))
    add_tokenizer(f, "llama", tokens, types, scores=scores, bos=1, eos=2, unk=0, add_bos=True)
    f.close()
    write_ids("spm")


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    make_types()
    make_biases()
    make_tokenizer()
