# SPDX-License-Identifier: Apache-2.0
"""Compares `mica convert` with `mlx_lm convert` tensor by tensor; exits 1 on any difference.

    compare_quant.py build/mica DENSE_FOLDER_OR_GGUF... [--grid] [--greedy 24]

A dense HF folder is quantised by both for each bits x group (all of them with --grid, otherwise 4x64 and 8x32); every
tensor must be equal bit for bit, and mlx-lm must generate the same greedy tokens from both folders. A GGUF file is
converted by mica; mlx-lm must load the result, and its dequantised weights are compared with transformers' reading of
the file (the largest difference relative to the tensor's largest weight is printed; 1/256, bf16 rounding, is allowed).
"""
import argparse
import contextlib
import glob
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile

import mlx.core as mx
import numpy as np
import torch
from common import dequantised_folder, load_file, read_json, with_old_rope_fields
from mlx_lm.convert import convert
from mlx_lm.generate import generate_step
from mlx_lm.utils import load as mlx_load
from reference import is_gguf

mx.set_default_device(mx.cpu)


def mica_convert(binary, source, out, *flags):
    done = subprocess.run([binary, "convert", source, out, *flags], capture_output=True)
    if done.returncode:
        raise SystemExit(f"mica convert {source} {' '.join(flags)}: exit {done.returncode}: {done.stderr.decode()[-400:].strip()}")


def tensors(folder):
    out = {}
    for path in sorted(glob.glob(folder + "/model*.safetensors")):
        out.update(mx.load(path))
    return out


def raw(a):
    return np.array(a.view(mx.uint8)) if a.size else np.zeros(0, np.uint8)


def greedy(folder, n):
    with contextlib.redirect_stdout(io.StringIO()):
        model, _ = mlx_load(folder)
    prompt = mx.array([1, 5, 9, 30, 7, 11, 2, 100, 42])
    return [int(token) for token, _ in generate_step(prompt, model, max_tokens=n)]


def compare_folders(mine, theirs, n):
    a, b = tensors(mine), tensors(theirs)
    bad = [f"only mica has {k}" for k in sorted(a.keys() - b.keys())] + [f"mica lacks {k}" for k in sorted(b.keys() - a.keys())]
    for k in sorted(a.keys() & b.keys()):
        if a[k].dtype != b[k].dtype or a[k].shape != b[k].shape:
            bad.append(f"{k}: {a[k].dtype}{a[k].shape}, mlx-lm {b[k].dtype}{b[k].shape}")
        elif not np.array_equal(raw(a[k]), raw(b[k])):
            different = int((raw(a[k]) != raw(b[k])).sum())
            bad.append(f"{k}: {different} of {a[k].nbytes} bytes differ")
    x, y = (read_json(f + "/config.json").get("quantization") for f in (mine, theirs))
    if x != y:
        bad.append(f"config quantization {json.dumps(x)[:200]}, mlx-lm {json.dumps(y)[:200]}")
    with_old_rope_fields(theirs)  # else mlx-lm loses the RoPE scaling of a config that transformers 5 wrote
    text = greedy(mine, n) == greedy(theirs, n)
    return len(b), bad + ([] if text else ["mlx-lm's greedy tokens differ"])


def dense(binary, source, options, tmp):
    grid = [(4, 64), (8, 32)] if not options.grid else [(b, g) for b in (2, 3, 4, 5, 6, 8) for g in (32, 64, 128)]
    failures = 0
    for bits, group in grid:
        mine, theirs = f"{tmp}/mica-{bits}-{group}", f"{tmp}/mlx-{bits}-{group}"
        mica_convert(binary, source, mine, "--bits", str(bits), "--group-size", str(group))
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                convert(source, theirs, quantize=True, q_bits=bits, q_group_size=group)
        except ValueError as e:
            print(f"{source}: skipped: mlx-lm itself cannot load it: {str(e)[:150]}")
            return 0
        count, bad = compare_folders(mine, theirs, options.greedy)
        print(f"{source} {bits} bits, groups of {group}: {count} tensors, {len(bad)} differences", flush=True)
        print("".join(f"    {line}\n" for line in bad[:10]), end="")
        failures += len(bad)
        shutil.rmtree(mine)
        shutil.rmtree(theirs)
    return failures


def gguf(binary, source, options, tmp):
    from transformers import AutoModelForCausalLM

    mine = tmp + "/mica"
    mica_convert(binary, source, mine)
    tokens = greedy(mine, options.greedy)
    folder, name = os.path.split(os.path.abspath(source))
    want = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).state_dict()
    if "quantization" in read_json(mine + "/config.json"):
        dequantised_folder(mine, tmp + "/dense", "float32")
        got = load_file(tmp + "/dense/model.safetensors")
    else:
        got = {k: torch.from_numpy(np.array(v.astype(mx.float32))) for k, v in tensors(mine).items()}
    worst, missing = {}, [k for k in want if k not in got and k != "lm_head.weight"]
    for k in want.keys() & got.keys():
        worst[k] = float((want[k].float() - got[k]).abs().max() / want[k].abs().max().clamp(min=1e-30))
    k = max(worst, key=worst.get)
    beyond = [k for k in worst if worst[k] > 1 / 256]
    print(f"{source}: mlx-lm loads it and generates {tokens[:8]}...; {len(worst)} tensors, worst {worst[k]:.2e} ({k}),"
          f" {len(beyond)} beyond bf16 rounding, missing {missing}", flush=True)
    shutil.rmtree(mine)
    return len(beyond) + len(missing)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mica")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--greedy", type=int, default=24)
    options = parser.parse_args()
    bad = 0
    for source in options.sources:
        with tempfile.TemporaryDirectory() as tmp:
            bad += (gguf if is_gguf(source) else dense)(options.mica, source, options, tmp)
    print(f"{bad} differences")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
