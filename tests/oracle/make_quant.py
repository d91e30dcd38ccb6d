# SPDX-License-Identifier: Apache-2.0
"""MLX-quantised tiny models and what they compute; MLX's quantiser on easy and nasty weights.

tests/golden/quant/<name>/ is a folder as mlx_lm.convert writes it, with expected.safetensors:
  input_ids [T] i32; logprobs [T,V] f32: transformers in f32 on the weights dequantised in f32;
  logprobs_bf16 [T,V]: transformers in bf16 on the weights dequantised to bf16; greedy, greedy_margin
  as for the dense models. tests/golden/quant/vectors.safetensors: see make_vectors.
"""
import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from common import *
from make_models import EOS, gemma_config, old_gemma
from mlx_lm.utils import load as mlx_load
from mlx_lm.utils import quantize_model, save as mlx_save
from transformers import (
    Gemma3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

mx.set_default_device(mx.cpu)
OUT = os.path.join(GOLDEN, "quant")
T = 12


def dense_folder(path, model, seed, dtype):
    randomise(model, seed)
    model.to(TORCH_DTYPES[dtype]).save_pretrained(path)
    write_tokenizer(path)


def llama(**kw):
    base = dict(
        vocab_size=VOCAB, hidden_size=128, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=64, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, **EOS,
    )
    return LlamaForCausalLM(LlamaConfig(**{**base, **kw}))


def quantised_folder(dense, name, bits, group, mode="affine", predicate=None, edit=None):
    """What `mlx_lm convert -q` does; `edit` adjusts the written config.json."""
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()):
        model, tokenizer, config = mlx_load(dense, return_config=True, lazy=True)
        model, config = quantize_model(model, config, group, bits, mode=mode, quant_predicate=predicate)
        mlx_save(Path(folder), dense, model, tokenizer, config)
    for junk in ("README.md", "chat_template.jinja"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, junk))
    shutil.copy(os.path.join(dense, "tokenizer.json"), folder)
    shutil.copy(os.path.join(dense, "tokenizer_config.json"), folder)
    if edit:
        path = os.path.join(folder, "config.json")
        write_json(path, edit(read_json(path)))
    return folder


def expect(folder, seed):
    ids = prompt(T, seed)
    result = {"input_ids": torch.tensor(ids, dtype=torch.int32)}
    with tempfile.TemporaryDirectory() as tmp:
        dequantised_folder(folder, tmp + "/f32", "float32")
        dequantised_folder(folder, tmp + "/bf16", "bfloat16")
        exact = load(tmp + "/f32", torch.float32)
        result["logprobs"] = logprobs(exact, ids)
        result["greedy"], result["greedy_margin"] = greedy(exact, ids, 16)
        result["logprobs_bf16"] = logprobs(load(tmp + "/bf16", torch.bfloat16), ids)
    save_expected(folder, result)
    # mlx-lm itself on the folder: proof that the configuration was read as meant.
    with contextlib.redirect_stdout(io.StringIO()):
        model, _ = mlx_load(folder)
    got = nn.log_softmax(model(mx.array([ids]))[0].astype(mx.float32), axis=-1)
    got = torch.from_numpy(np.array(got))
    print(
        f"{os.path.basename(folder):20} {folder_bytes(folder) // 1024:4} KiB; mean difference from f32:"
        f" transformers bf16 {mean_abs(result['logprobs_bf16'], result['logprobs']):.5f},"
        f" mlx-lm {mean_abs(got, result['logprobs']):.5f}",
        flush=True,
    )


def make_grid(tmp):
    dense = tmp + "/llama"
    dense_folder(dense, llama(), 100, "bfloat16")
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            expect(quantised_folder(dense, f"llama-{bits}bit-g{group}", bits, group), 100 + bits)


def make_others(tmp):
    for dtype, bits, group in (("float32", 4, 64), ("float16", 4, 32)):
        dense_folder(f"{tmp}/{dtype}", llama(), 101, dtype)
        expect(quantised_folder(f"{tmp}/{dtype}", f"llama-4bit-{dtype}", bits, group), 101)

    # Per-module overrides: dicts with and without all fields, false, true; one width no group divides.
    dense_folder(tmp + "/mixed", llama(tie_word_embeddings=False, intermediate_size=96, attention_bias=True), 102, "bfloat16")
    chosen = {
        "model.layers.0.self_attn.v_proj": {"group_size": 32, "bits": 6},
        "model.layers.0.self_attn.q_proj": {"group_size": 64, "bits": 4},
        "model.layers.0.mlp.gate_proj": {"group_size": 32, "bits": 3, "mode": "affine"},
        "model.layers.0.mlp.up_proj": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
        "model.layers.0.self_attn.o_proj": False,
        "model.embed_tokens": {"group_size": 128, "bits": 8},
    }

    def edit(config):
        q = config["quantization"]
        q["model.layers.0.self_attn.q_proj"] = {"bits": 4}  # missing fields: mode affine, its group size 64
        q["model.layers.0.self_attn.o_proj"] = False
        q["model.layers.0.self_attn.k_proj"] = True
        config["quantization_config"] = dict(q)
        return config

    predicate = lambda path, module: chosen.get(path, True)
    expect(quantised_folder(tmp + "/mixed", "llama-mixed", 5, 64, predicate=predicate, edit=edit), 102)

    for mode in ("mxfp4", "nvfp4", "mxfp8"):
        expect(quantised_folder(tmp + "/llama", f"llama-{mode}", None, None, mode), 103)

    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=256, rms_norm_eps=1e-6, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, **EOS,
    )
    dense_folder(tmp + "/qwen3", Qwen3ForCausalLM(config), 104, "bfloat16")
    expect(quantised_folder(tmp + "/qwen3", "qwen3-4bit", 4, 32), 104)

    shape = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, layer_types=None, sliding_window_pattern=2)
    dense_folder(tmp + "/gemma3", Gemma3ForCausalLM(gemma_config(head_dim=32, **shape)), 105, "bfloat16")
    path = tmp + "/gemma3/config.json"
    write_json(path, old_gemma(read_json(path), 2, None, "bfloat16"))
    expect(quantised_folder(tmp + "/gemma3", "gemma3-4bit", 4, 64), 105)


def nasty_rows(columns):
    """Named rows of f32 weights: [rows, columns]."""
    rng = np.random.default_rng(5)
    n = columns
    rows = [rng.standard_normal(n) * s for s in (1.0, 0.02, 1e-3, 30.0)]
    rows += [rng.uniform(0, 1, n), rng.uniform(-1, 0, n), -np.abs(rng.standard_normal(n)) * 0.01]
    rows += [np.zeros(n), np.full(n, 0.37), np.full(n, -2.5), np.full(n, 1e-20)]
    rows += [np.where(np.arange(n) == 5, 7.0, 0.0), np.where(np.arange(n) % 2, 1.0, -1.0)]
    rows += [((37 * np.arange(n)) % 64 - 31) / 16.0, np.arange(n) / 3.0, -np.arange(n) * 1.0]
    rows += [rng.standard_normal(n) * 1e-40, rng.standard_normal(n) * 6e-8, rng.standard_normal(n) * 1e4]
    rows += [np.where(np.arange(n) % 7, 1.0, 1.0 + 1e-6), rng.standard_cauchy(n), np.round(rng.standard_normal(n) * 4) / 8]
    rows += [np.where(np.arange(n) % 2, -0.0, 0.0), 5.0 + rng.standard_normal(n) * 1e-3]
    huge = [rng.standard_normal(n) * 1e30, np.where(np.arange(n) % 2, 3e38, -3e38), rng.standard_normal(n) * 1e37]
    return np.array(rows, dtype=np.float32), np.array(huge, dtype=np.float32)


def make_vectors():
    """vectors.safetensors: for each input dtype D in f32, f16, bf16 the weights "D.w" [rows,128], and for each
    bits b and group g "D.b.g.q" u32, "D.b.g.scales", "D.b.g.biases"; for each mode m "D.m.q" u32, "D.m.scales" u8.
    "f32.b.32.dq" and "f32.m.dq" are mx.dequantize's answer in f32. f16 lacks the rows that
    overflow it. "odd.w" [3,5,192] f32 with "odd.q" etc. (3 bits, 64) has three dimensions and three groups a row.
    """
    rows, huge = nasty_rows(128)
    out = {}
    for dtype in ("float32", "float16", "bfloat16"):
        short = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}[dtype]
        w = mx.array(rows if dtype == "float16" else np.concatenate([rows, huge])).astype(getattr(mx, dtype))
        out[f"{short}.w"] = w
        for bits in (2, 3, 4, 5, 6, 8):
            for group in (32, 64, 128):
                key = f"{short}.{bits}.{group}"
                q, s, b = mx.quantize(w, group, bits)
                out.update({f"{key}.q": q, f"{key}.scales": s, f"{key}.biases": b})
        for mode in ("mxfp4", "nvfp4", "mxfp8"):
            q, s = mx.quantize(w, mode=mode)
            out.update({f"{short}.{mode}.q": q, f"{short}.{mode}.scales": s})
            if short == "f32":
                out[f"f32.{mode}.dq"] = mx.dequantize(q, s, mode=mode, dtype=mx.float32)
    for bits in (2, 3, 4, 5, 6, 8):
        key = f"f32.{bits}.32"
        out[f"{key}.dq"] = mx.dequantize(out[f"{key}.q"], out[f"{key}.scales"], out[f"{key}.biases"], 32, bits)
    odd = mx.array(np.random.default_rng(6).standard_normal((3, 5, 192)).astype(np.float32))
    q, s, b = mx.quantize(odd, 64, 3)
    out.update({"odd.w": odd, "odd.q": q, "odd.scales": s, "odd.biases": b})
    golden = mx.array((((37 * np.arange(64)) % 64 - 31) / 16.0).astype(np.float32))[None]
    assert mx.quantize(golden, 64, 4)[0][0, 0].item() == 0xF82B4D6F
    path = os.path.join(OUT, "vectors.safetensors")
    # The padded header and the order of torch's writer: readable by the strictest parser.
    save_file({k: to_torch(v) for k, v in out.items()}, path)
    print(f"vectors.safetensors {os.path.getsize(path) // 1024} KiB, {len(out)} tensors")


def to_torch(a):
    if a.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(a.view(mx.uint16)).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(a).copy())


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["grid", "others", "vectors"]
    os.makedirs(OUT, exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        if "others" in wanted and "grid" not in wanted:
            dense_folder(tmp + "/llama", llama(), 100, "bfloat16")
        if "grid" in wanted:
            make_grid(tmp)
        if "others" in wanted:
            make_others(tmp)
    if "vectors" in wanted:
        make_vectors()
    print(f"total {folder_bytes(OUT) // 1024} KiB")
