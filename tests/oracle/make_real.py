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
from common import with_old_rope_fields
from mlx_lm.convert import convert
from transformers import AutoModelForCausalLM, AutoTokenizer


def bf16_folder(path, out):
    folder, name = os.path.split(os.path.abspath(path))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    model.hf_quantizer = None  # the weights are dequantised already; what is left would refuse to be saved
    model.config.__dict__.pop("quantization_config", None)
    model.to(torch.bfloat16).save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)


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
