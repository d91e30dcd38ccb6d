# SPDX-License-Identifier: Apache-2.0
"""Tiny random checkpoints in the Hugging Face layout, with what transformers computes from them.

Each folder of tests/golden/models gets expected.safetensors:
  input_ids [T] i32, logprobs [T,V] f32 (transformers in f32, eager attention), greedy [n] i32 and
  greedy_margin [n] f32 (log-probability of the winner minus the runner-up's);
  logprobs_bf16 [T,V] for bf16 checkpoints (transformers in bf16, converted to f32);
  short_input_ids and short_logprobs where a prompt below the original context takes another path.
"""
import os
import shutil
import sys

from common import *
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

OUT = os.path.join(GOLDEN, "models")
EOS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


def old_style(config, rope_theta, rope_scaling=None, dtype="float32", drop=(), **extra):
    """Rewrite a config the way transformers 4 did: rope_theta, rope_scaling, torch_dtype."""
    config = dict(config)
    for key in ("rope_parameters", "dtype", "layer_types", *drop):
        config.pop(key, None)
    config.update(rope_theta=rope_theta, rope_scaling=rope_scaling, torch_dtype=dtype, transformers_version="4.51.3")
    config.update(extra)
    return config


def save(name, model, seed, dtype=torch.float32, edit=None, shard=None, rename=None, extra=None):
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    randomise(model, seed)
    model = model.to(dtype)
    model.generation_config.eos_token_id = [1, 7]
    model.save_pretrained(folder, max_shard_size=shard or "5GB")
    write_tokenizer(folder)
    if rename:
        path = os.path.join(folder, "model.safetensors")
        tensors = {rename(k): v for k, v in load_file(path).items()}
        tensors.update(extra or {})
        save_file(tensors, path, metadata={"format": "pt"})
    if edit:
        path = os.path.join(folder, "config.json")
        write_json(path, edit(read_json(path)))
    return folder


def expect(folder, seed, length=32, n=24, short=0, bf16=False, reference=None):
    """reference: a model class other than the automatic one (nested checkpoints)."""
    ids = prompt(length, seed)
    model = load(folder, torch.float32, reference)
    result = {"input_ids": torch.tensor(ids, dtype=torch.int32), "logprobs": logprobs(model, ids)}
    result["greedy"], result["greedy_margin"] = greedy(load(folder, torch.float32, reference), ids, n)
    if short:
        result["short_input_ids"] = result["input_ids"][:short].clone()
        result["short_logprobs"] = logprobs(load(folder, torch.float32, reference), ids[:short])
    note = ""
    if bf16:
        result["logprobs_bf16"] = logprobs(load(folder, torch.bfloat16, reference), ids)
        note = f" bf16 error {mean_abs(result['logprobs_bf16'], result['logprobs']):.5f}"
    save_expected(folder, result)
    entropy = -(result["logprobs"].exp() * result["logprobs"]).sum(-1).mean()
    print(
        f"{os.path.basename(folder):24} {folder_bytes(folder) // 1024:5} KiB entropy {entropy:.2f}"
        f" least margin {result['greedy_margin'].min():.4f}{note}",
        flush=True,
    )


def llama(**kw):
    base = dict(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True, **EOS,
    )
    return LlamaForCausalLM(LlamaConfig(**{**base, **kw}))


def make_llama():
    model = llama(
        hidden_size=48, intermediate_size=60, num_attention_heads=6, num_key_value_heads=2, attention_bias=True,
        mlp_bias=True, tie_word_embeddings=False, vocab_size=291, max_position_embeddings=512,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
        },
    )
    expect(save("llama-f32", model, 1, shard="60KB"), 1)

    model = llama(
        hidden_size=64, intermediate_size=72, num_attention_heads=2, num_key_value_heads=1, head_dim=48,
    )
    edit = lambda c: old_style(c, 500000.0, dtype="bfloat16")
    expect(save("llama-bf16", model, 2, torch.bfloat16, edit), 2, bf16=True)

    edit = lambda c: old_style(
        c, 10000.0, {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, drop=("head_dim",)
    )
    expect(save("llama-yarn", llama(), 3, edit=edit), 3)

    model = llama(
        head_dim=20,
        rope_parameters={
            "rope_type": "yarn", "rope_theta": 5000.0, "factor": 16.0, "original_max_position_embeddings": 16,
            "beta_fast": 24.0, "beta_slow": 2.0, "mscale": 1.0, "mscale_all_dim": 0.7, "truncate": False,
        },
        max_position_embeddings=256,
    )
    expect(save("llama-yarn-mscale", model, 4), 4)

    edit = lambda c: old_style(c, 10000.0, {"type": "linear", "factor": 4.0}, drop=("head_dim",))
    expect(save("llama-linear", llama(), 5, edit=edit), 5)

    model = llama(
        max_position_embeddings=24, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0}
    )
    expect(save("llama-dynamic", model, 6), 6, short=16)

    rng = random.Random(7)
    factors = lambda top: [round(1.0 + rng.random() * top, 4) for _ in range(4)]
    model = llama(
        max_position_embeddings=128,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": factors(0.3), "long_factor": factors(6.0),
            "original_max_position_embeddings": 24,
        },
    )
    expect(save("llama-longrope", model, 7), 7, short=16)


def make_qwen():
    base = dict(
        vocab_size=VOCAB, hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=5,
        num_key_value_heads=1, max_position_embeddings=256, rms_norm_eps=1e-6, tie_word_embeddings=False, **EOS,
    )
    model = Qwen2ForCausalLM(Qwen2Config(**{**base, "tie_word_embeddings": True}))
    edit = lambda c: old_style(c, 1000000.0, use_sliding_window=False, sliding_window=32768, max_window_layers=2)
    expect(save("qwen2-f32", model, 8, edit=edit), 8)

    base.update(num_attention_heads=6, num_key_value_heads=2, head_dim=20)
    model = Qwen3ForCausalLM(Qwen3Config(**base))
    expect(save("qwen3-f32", model, 9), 9)

    base.update(tie_word_embeddings=True, hidden_size=72)
    model = Qwen3ForCausalLM(Qwen3Config(**base))
    edit = lambda c: old_style(c, 1000000.0, dtype="bfloat16", sliding_window=None, use_sliding_window=False)
    expect(save("qwen3-bf16", model, 10, torch.bfloat16, edit), 10, bf16=True)


def gemma_config(**kw):
    base = dict(
        vocab_size=VOCAB, hidden_size=28, intermediate_size=44, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=24, query_pre_attn_scalar=19, sliding_window=8, max_position_embeddings=256,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"], **EOS,
    )
    return Gemma3TextConfig(**{**base, **kw})


def old_gemma(c, pattern, scaling, dtype, **extra):
    c = old_style(c, 1000000.0, scaling, dtype=dtype, drop=("_sliding_window_pattern",), **extra)
    c.update(rope_local_base_freq=10000.0, sliding_window_pattern=pattern)
    return c


def make_gemma():
    expect(save("gemma3-text-f32", Gemma3ForCausalLM(gemma_config()), 11), 11)

    model = Gemma3ForCausalLM(
        gemma_config(hidden_size=52, num_key_value_heads=1, layer_types=None, sliding_window_pattern=2)
    )
    edit = lambda c: old_gemma(c, 2, None, "bfloat16")
    expect(save("gemma3-text-bf16", model, 12, torch.bfloat16, edit), 12, bf16=True)

    # As published for the 4B model: nested, names prefixed language_model.model., vision weights beside
    # them, and fields equal to the class's defaults (8 heads, 4 of keys, head size 256) left out.
    defaults = dict(num_attention_heads=8, num_key_value_heads=4, head_dim=256, query_pre_attn_scalar=256)
    config = gemma_config(
        hidden_size=8, num_hidden_layers=2, layer_types=None, sliding_window_pattern=2,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        **defaults,
    )

    def edit(c):
        keep = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "sliding_window", "model_type")
        text = {k: c[k] for k in keep}
        text.update(rope_scaling={"rope_type": "linear", "factor": 8.0}, sliding_window_pattern=2)
        return {
            "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text,
            "boi_token_index": 280, "eoi_token_index": 281, "image_token_index": 282, "mm_tokens_per_image": 4,
            "eos_token_id": [1, 5], "initializer_range": 0.02, "torch_dtype": "bfloat16",
            "transformers_version": "4.50.0.dev0",
            "vision_config": {
                "hidden_size": 8, "image_size": 8, "intermediate_size": 8, "model_type": "siglip_vision_model",
                "num_attention_heads": 1, "num_hidden_layers": 1, "patch_size": 4,
            },
        }

    extra = {
        "vision_tower.vision_model.embeddings.patch_embedding.weight": torch.ones(8, 3, 4, 4, dtype=torch.bfloat16),
        "multi_modal_projector.mm_input_projection_weight": torch.ones(8, 8, dtype=torch.bfloat16),
    }
    folder = save(
        "gemma3-nested", Gemma3ForCausalLM(config), 13, torch.bfloat16, edit, None, lambda k: "language_model." + k, extra
    )
    expect(folder, 13, bf16=True, reference=Gemma3ForConditionalGeneration)

    # The configuration as transformers 5 writes it, one rope_parameters object a layer type; names prefixed
    # model.language_model., as the model has them in memory and some tools save them.
    vision = dict(
        hidden_size=8, image_size=8, intermediate_size=8, num_attention_heads=1, num_hidden_layers=1, patch_size=4
    )
    text = gemma_config(rope_parameters=config.rope_parameters).to_dict()
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, boi_token_index=280, eoi_token_index=281,
        image_token_id=282,
    )
    rename = lambda k: k.replace("language_model.model.", "model.language_model.")
    folder = save("gemma3-nested-v5", Gemma3ForConditionalGeneration(config), 14, rename=rename)
    expect(folder, 14, reference=Gemma3ForConditionalGeneration)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["llama", "qwen", "gemma"]
    for family in wanted:
        globals()["make_" + family]()
    print(f"total {folder_bytes(OUT) // 1024} KiB")
