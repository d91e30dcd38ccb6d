# SPDX-License-Identifier: Apache-2.0
"""Adapters that mica writes and models that it fuses, loaded by mlx-lm, peft and transformers; exits 1 if any computes something else.

    check_adapters.py BUILD_DIR

Each golden adapter is written anew by mica in mlx-lm's and in PEFT's form (BUILD_DIR/tests/test_adapter_write) and loaded by that tool on its base
(a quantised one: dequantised in f32); each is fused by `mica fuse` into dense weights and, where the base is quantised, into such weights again,
and loaded by mlx-lm and (dense) transformers. All are compared with the log-probabilities that the tool which made the golden adapter computed,
a quantised result with mica's own. Allowed: a mean difference of 1e-4, or where mlx-lm computes the model itself, without any adapter, less exactly
(Gemma 3, whose embeddings it scales in bf16), 1.5 times that. Adapters that `mica train` writes are loaded by both tools as well.
"""
import subprocess
import sys
import tempfile

import mlx.core as mx
from common import *
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load as mlx_load
from reference import comma, run_mica

mx.set_default_device(mx.cpu)
ALLOWED = 1e-4


def from_mlx(model, ids):
    logits = model(mx.array([ids]))
    return torch.log_softmax(torch.from_numpy(np.array(logits.astype(mx.float32)))[0], -1)


def dense_copy(binary, base, to):
    """The base as a folder that all tools load, in f32."""
    subprocess.run([binary, "convert", base, to, "--dtype", "f32", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    if not os.path.exists(os.path.join(to, "tokenizer.json")):
        write_tokenizer(to)


def in_mlx_lm(folder, ids, adapter=None):
    model, _ = mlx_load(folder)
    if adapter:
        load_adapters(model, adapter)
        model.eval()
    return from_mlx(model, ids)


def in_peft(folder, ids, adapter):
    from peft import PeftModel

    return logprobs(PeftModel.from_pretrained(load(folder, torch.float32), adapter).eval(), ids)


def in_mica(binary, folder, ids, *options):
    vocab = read_json(os.path.join(folder, "config.json")).get("vocab_size", VOCAB)
    got = run_mica(binary, ["score", folder, *options, "--json", "--ids", comma(ids), "--top", str(vocab)], {})
    out = torch.empty(len(ids), vocab)
    for i, entries in enumerate(got["top"]):
        for token, value in entries:
            out[i, token] = value
    return out


class Report:
    bad = 0

    def line(self, name, what, got, want, allowed=ALLOWED):
        error = mean_abs(got, want)
        self.bad += not error <= allowed
        print(f"{name:16} {what:34} mean |d log p| {error:.2e}{'' if error <= allowed else '   WRONG'}", flush=True)


def fused(binary, base, adapter, out, *options):
    subprocess.run([binary, "fuse", base, out, "--adapter", adapter, "--quiet", "--no-cost", *options], check=True, stdout=subprocess.DEVNULL)
    if not os.path.exists(os.path.join(out, "tokenizer.json")):
        write_tokenizer(out)
    return out


def check(name, build, tmp, report):
    golden = os.path.join(GOLDEN, "adapters", name)
    with open(os.path.join(golden, "base.txt"), encoding="utf-8") as f:
        base = os.path.join(GOLDEN, f.read().strip())
    expected = load_file(os.path.join(golden, "expected.safetensors"))
    ids, want = expected["input_ids"].tolist(), expected["logprobs"]
    binary, copy = os.path.join(build, "mica"), os.path.join(tmp, name + ".base")
    dense_copy(binary, base, copy)
    own = max(ALLOWED, 1.5 * mean_abs(in_mlx_lm(copy, ids), logprobs(load(copy, torch.float32), ids)))
    for form, tool, allowed in (("mlx", in_mlx_lm, own), ("peft", in_peft, ALLOWED)):
        adapter = os.path.join(tmp, f"{name}.{form}")
        if os.path.exists(os.path.join(adapter, "adapter_config.json")):
            report.line(name, f"written for {form}, loaded there", tool(copy, ids, adapter), want, allowed)
        else:
            print(f"{name:16} not written for {form}")
    dense = fused(binary, base, golden, os.path.join(tmp, name + ".dense"), "--dequantize")
    report.line(name, "fused, in mlx-lm", in_mlx_lm(dense, ids), want, own)
    report.line(name, "fused, in transformers", logprobs(load(dense, torch.float32), ids), want)
    if "quantization" in read_json(os.path.join(base, "config.json")):
        packed = fused(binary, base, golden, os.path.join(tmp, name + ".packed"))
        report.line(name, "fused and quantised, in mlx-lm", in_mlx_lm(packed, ids), in_mica(binary, packed, ids))


def check_nested(build, tmp, report):
    """Adapters of the text model of a multi-modal one, which the tools know under longer names."""
    from peft import PeftModel
    from transformers import Gemma3ForConditionalGeneration

    binary, base, ids = os.path.join(build, "mica"), os.path.join(GOLDEN, "models", "gemma3-nested-v5"), prompt(20, 5)
    peft, mlx = (os.path.join(tmp, f"nested-go-mlx.{form}") for form in ("peft", "mlx"))
    model = load(base, torch.float32, Gemma3ForConditionalGeneration)
    before = logprobs(model, ids)
    want = logprobs(PeftModel.from_pretrained(model, peft).eval(), ids)
    assert mean_abs(before, want) > 0.01, "the adapter changes nothing"
    copy = os.path.join(tmp, "nested.base")
    dense_copy(binary, base, copy)
    allowed = max(ALLOWED, 1.5 * mean_abs(in_mlx_lm(copy, ids), before))
    report.line("nested", "written for mlx, loaded there", in_mlx_lm(copy, ids, mlx), want, allowed)
    for form in (mlx, peft):
        dense = fused(binary, base, form, form + ".dense", "--dtype", "f32")
        report.line("nested", f"fused of {form.rpartition('.')[2]}'s form, in mlx-lm", in_mlx_lm(dense, ids), want, allowed)
        report.line("nested", f"fused of {form.rpartition('.')[2]}'s form, in mica", in_mica(binary, dense, ids), want)


def check_trained(build, tmp, report):
    """What `mica train` writes, in both forms."""
    binary, base, ids = os.path.join(build, "mica"), os.path.join(GOLDEN, "models", "qwen3-f32"), prompt(20, 5)
    data = os.path.join(tmp, "data")
    os.makedirs(data)
    with open(os.path.join(data, "train.jsonl"), "w", encoding="utf-8") as f:
        f.writelines('{"text":"%d brown foxes jump over %d lazy dogs"}\n' % (i, i * 7 % 5) for i in range(16))
    before = in_mica(binary, base, ids)
    for kind in ("lora", "dora"):
        for form, tool in (("mlx-lm", in_mlx_lm), ("peft", in_peft)):
            out = os.path.join(tmp, f"{kind}.{form}")
            subprocess.run([binary, "train", base, "--data", data, "--adapter", out, "--kind", kind, "--adapter-format", form, "--iters", "20", "--lr",
                            "1e-2", "--layers", "1", "--quiet"], check=True, stdout=subprocess.DEVNULL)
            want = in_mica(binary, base, ids, "--adapter", out)
            assert mean_abs(before, want) > 0.01, "the training changed nothing"
            report.line("trained", f"{kind}, loaded by {form}", tool(base, ids, out), want)


def main():
    build, report = sys.argv[1], Report()
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([os.path.join(build, "tests", "test_adapter_write"), tmp], check=True)
        for name in sorted(os.listdir(os.path.join(GOLDEN, "adapters"))):
            check(name, build, tmp, report)
        check_nested(build, tmp, report)
        check_trained(build, tmp, report)
    return 1 if report.bad else 0


if __name__ == "__main__":
    sys.exit(main())
