# SPDX-License-Identifier: Apache-2.0
"""Tiny GGUF files with many block formats, and what transformers computes from them (gguf_file=).

    make_gguf.py PATH_TO_LLAMA_QUANTIZE

tests/golden/gguf/llama.gguf: K-quants and others, written by llama.cpp's quantiser, gpt2 tokenizer with pre = llama-bpe;
gemma3.gguf: the 32-wide formats, SentencePiece tokenizer; qwen2.gguf: biases, F16 and BF16. <name>.safetensors beside
each holds input_ids, logprobs and logprobs_bf16 as for the other models, and the first two rows of every weight
dequantised in f32 under its Hugging Face name ("w.<name>"); <name>.jsonl the token ids as transformers reads the file.
"""
import os
import subprocess
import sys

import gguf
from common import *
from make_models import EOS, gemma_config
from reference import Reference, logprobs
from transformers import Gemma3ForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

OUT = os.path.join(GOLDEN, "gguf")
Q = gguf.GGMLQuantizationType
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}
PLAIN = {**NAMES, "post_attention_layernorm": "ffn_norm"}
GEMMA = {**NAMES, "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
         "post_feedforward_layernorm": "post_ffw_norm"}


def gguf_name(name, table):
    parts = name.split(".")
    if parts[1] != "layers":
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                "lm_head.weight": "output.weight"}[name]
    return f"blk.{parts[2]}.{table['.'.join(parts[3:-1])]}.{parts[-1]}"


def interleaved(w, heads):
    """Rows of a llama q or k projection in the order llama.cpp wants: RoPE pairs side by side."""
    shape = w.shape
    return w.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write(path, arch, model, kinds, tokenizer):
    """kinds: {part of a GGUF name: type}, the first that matches; vectors stay F32."""
    c = model.config
    w = gguf.GGUFWriter(path, arch)
    w.add_name("tiny")
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    rope = c.rope_parameters.get("full_attention", c.rope_parameters)
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_vocab_size(c.vocab_size)
    if arch == "gemma3":
        w.add_key_length(c.head_dim)
        w.add_value_length(c.head_dim)
        w.add_sliding_window(c.sliding_window)
    else:
        w.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    tokenizer(w, c.vocab_size)
    for name, p in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        a = p.float().numpy()
        if arch == "llama" and (".q_proj." in name or ".k_proj." in name):
            a = interleaved(a, c.num_attention_heads if ".q_proj." in name else c.num_key_value_heads)
        if arch == "gemma3" and "norm" in name:
            a = a + 1
        name = gguf_name(name, GEMMA if arch == "gemma3" else PLAIN)
        kind = Q.F32 if a.ndim == 1 else next((k for part, k in kinds.items() if part in name), Q.F32)
        a = np.ascontiguousarray(a, dtype=np.float32)
        w.add_tensor(name, a if kind == Q.F32 else gguf.quants.quantize(a, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def byte_level(pre):
    def add(w, vocab_size):
        write_tokenizer("/tmp")
        data = read_json("/tmp/tokenizer.json")
        by_id = {i: t for t, i in data["model"]["vocab"].items()}
        by_id[2] = "<|endoftext|>"  # transformers would add it behind the vocabulary if it were missing
        tokens = [by_id.get(i, f"[PAD{i}]") for i in range(vocab_size)]
        kinds = [gguf.TokenType.CONTROL if i < 3 else gguf.TokenType.NORMAL if i in by_id else gguf.TokenType.UNUSED
                 for i in range(vocab_size)]
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(pre)
        w.add_token_list(tokens)
        w.add_token_types(kinds)
        w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]])
        w.add_bos_token_id(0)
        w.add_eos_token_id(1)
        w.add_pad_token_id(2)
        w.add_add_bos_token(pre == "llama-bpe")
    return add


def sentencepiece(w, vocab_size):
    pieces = ["▁", "e", "t", "a", "h", "n", "o", "▁t", "he", "▁the", "in", "an", "and", "▁a", "on", "▁▁"]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[tool]"] + [f"<0x{b:02X}>" for b in range(256)] + pieces
    types = [gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.USER_DEFINED] + [gguf.TokenType.BYTE] * 256
    types += [gguf.TokenType.NORMAL] * len(pieces)
    types[3] = gguf.TokenType.UNKNOWN
    while len(tokens) < vocab_size:
        types.append(gguf.TokenType.UNUSED)
        tokens.append(f"<unused{len(tokens)}>")
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(tokens)
    w.add_token_scores([-float(i) for i in range(len(tokens))])
    w.add_token_types(types)
    w.add_bos_token_id(2)
    w.add_eos_token_id(1)
    w.add_unk_token_id(3)
    w.add_pad_token_id(0)
    w.add_add_bos_token(True)
    w.add_add_space_prefix(False)


def expect(path, seed):
    from make_tokenizers import golden
    from compare_tokenizers import reference

    ids = prompt(24, seed)
    judge = Reference(path)
    model = judge.load(torch.float32)
    out = {"input_ids": torch.tensor(ids, dtype=torch.int32), "logprobs": logprobs(model, ids)}
    out.update({"w." + k: v.clone() for k, v in model.state_dict().items() if k != "lm_head.weight" or not model.config.tie_word_embeddings})
    # Two rows of each matrix are enough to check a block format by, and keep the file small.
    out = {k: (v[:2] if k.startswith("w.") and v.ndim == 2 else v) for k, v in out.items()}
    out["logprobs_bf16"] = logprobs(judge.load(torch.bfloat16), ids)
    name = os.path.basename(path)
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(OUT, name + ".safetensors"))
    golden(reference(path), name, 60, 48, OUT)
    kinds = sorted({t.tensor_type.name for t in gguf.GGUFReader(path).tensors})
    print(f"{name}: {os.path.getsize(path) // 1024} KiB, {' '.join(kinds)};"
          f" bf16 error {mean_abs(out['logprobs_bf16'], out['logprobs']):.4f}", flush=True)


def main(quantizer):
    os.makedirs(OUT, exist_ok=True)
    base = dict(vocab_size=VOCAB, num_hidden_layers=1, max_position_embeddings=256, rms_norm_eps=1e-5, **EOS)
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}}

    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=256, intermediate_size=256, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False, **base, **rope
    ))
    randomise(model, 200)
    write("/tmp/llama-f32.gguf", "llama", model, {}, byte_level("llama-bpe"))
    kinds = {"attn_q": "q2_k", "attn_k": "q3_k", "attn_v": "q5_k", "attn_output": "q4_k", "ffn_gate": "q6_k", "ffn_up": "q4_0",
             "ffn_down": "q5_1"}
    path = os.path.join(OUT, "llama.gguf")
    flags = [x for k, v in kinds.items() for x in ("--tensor-type", f"{k}={v}")]
    subprocess.run(
        [quantizer, *flags, "--token-embedding-type", "q6_k", "--output-tensor-type", "q3_k", "/tmp/llama-f32.gguf", path, "Q8_0", "1"],
        check=True, capture_output=True,
    )
    expect(path, 200)

    model = Gemma3ForCausalLM(gemma_config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1, num_key_value_heads=1, head_dim=256,
        query_pre_attn_scalar=256, layer_types=None,
    ))
    randomise(model, 201)
    path = os.path.join(OUT, "gemma3.gguf")
    kinds = {"attn_q.": Q.Q4_0, "attn_k.": Q.Q4_1, "attn_v.": Q.Q5_0, "attn_output": Q.Q5_1, "ffn_gate": Q.Q8_0, "ffn_up": Q.Q4_1,
             "ffn_down": Q.Q5_1, "token_embd": Q.Q8_0}
    write(path, "gemma3", model, kinds, sentencepiece)
    expect(path, 201)

    model = Qwen2ForCausalLM(Qwen2Config(
        hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, **base, **rope
    ))
    randomise(model, 202)
    path = os.path.join(OUT, "qwen2.gguf")
    write(path, "qwen2", model, {"attn": Q.F16, "ffn": Q.BF16, "token_embd": Q.F16}, byte_level("qwen2"))
    expect(path, 202)


if __name__ == "__main__":
    main(sys.argv[1])
