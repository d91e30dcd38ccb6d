# SPDX-License-Identifier: Apache-2.0
"""GGUF -> the same model as a bf16 Hugging Face folder and as MLX folders, for the comparisons on real text.

    make_real.py OUT_DIR FILE.gguf... [--bits 4 8]

Writes OUT_DIR/<stem>-bf16 (transformers reads the GGUF, weights rounded to bf16) and OUT_DIR/<stem>-<bits>bit
(mlx_lm convert of that folder, group size 64; layers whose width 64 does not divide stay dense).
"""
import argparse
import os
import shutil

import torch
from common import read_json, write_json
from mlx_lm.convert import convert
from transformers import AutoModelForCausalLM, AutoTokenizer


def bf16_folder(path, out):
    folder, name = os.path.split(os.path.abspath(path))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    model.hf_quantizer = None  # the weights are dequantised already; what is left would refuse to be saved
    model.config.__dict__.pop("quantization_config", None)
    model.to(torch.bfloat16).save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)


def with_old_rope_fields(folder):
    """mlx-lm reads rope_theta and sliding_window_pattern where transformers 5 writes rope_parameters."""
    path = os.path.join(folder, "config.json")
    config = read_json(path)
    rope = config.get("rope_parameters") or {}
    full = rope.get("full_attention", rope)
    config.setdefault("rope_theta", full.get("rope_theta", 10000.0))
    if "sliding_attention" in rope:
        config.setdefault("rope_local_base_freq", rope["sliding_attention"]["rope_theta"])
        config.setdefault("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
    write_json(path, config)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--bits", type=int, nargs="*", default=[4, 8])
    options = parser.parse_args()
    for path in options.files:
        stem = os.path.splitext(os.path.basename(path))[0]
        dense = os.path.join(options.out, stem + "-bf16")
        shutil.rmtree(dense, ignore_errors=True)
        bf16_folder(path, dense)
        with_old_rope_fields(dense)
        for bits in options.bits:
            out = os.path.join(options.out, f"{stem}-{bits}bit")
            shutil.rmtree(out, ignore_errors=True)
            convert(dense, out, quantize=True, q_bits=bits, q_group_size=64)
        print(f"{stem}: done", flush=True)


if __name__ == "__main__":
    main()
