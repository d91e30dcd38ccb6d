# SPDX-License-Identifier: Apache-2.0
"""transformers as the judge of any model mica opens: an HF folder, an MLX folder or a GGUF file, in f32 or bf16."""
import glob
import json
import os
import subprocess
import tempfile

import torch
from common import TORCH_DTYPES, dequantised_folder, load, load_file, prompt, read_json
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForConditionalGeneration
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea, there lived an old fisherman who",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "Q: What is 17 + 25?\nA:",
    "Die Hauptstadt von Deutschland heißt",
    "La photosynthèse est le processus par lequel",
    "吾輩は猫である。名前は",
    "Столица России — город",
    "#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 10; i++) {\n",
    "Water boils at a temperature of",
    "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer",
    "{\"name\": \"Alice\", \"age\": 30, \"city\": \"",
    "1. Preheat the oven to 180 degrees.\n2. Mix the flour, sugar and",
]
# Longer than Gemma 3's sliding window of 512 in every tokenizer here.
LONG = " ".join(
    f"On day {i} the expedition walked {i * 7 % 23} miles north along the {w} river and made camp near a {w} hill."
    for i, w in enumerate("cold wide slow bright narrow muddy silent deep rocky green".split() * 4)
) + " On the last day they finally"


def is_gguf(path):
    return path.endswith(".gguf")


def weights_kind(path):
    """f32 if every weight is stored so; else the acceptance is relative to transformers' bf16 error."""
    if is_gguf(path):
        return "gguf"
    config = read_json(os.path.join(path, "config.json"))
    if "quantization" in config:
        return "mlx"
    dtype = config.get("dtype") or config.get("torch_dtype") or (config.get("text_config") or {}).get("dtype")
    return {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}.get(dtype, "bf16")


class Reference:
    """model(dtype) -> transformers model on the exact (dequantised) weights; the last one is kept."""

    def __init__(self, path):
        self.path, self.kind = path, weights_kind(path)
        self.kept = (None, None)

    def model(self, dtype):
        if self.kept[0] != dtype:
            self.kept = (None, None)
            self.kept = (dtype, self.load(TORCH_DTYPES[dtype]))
        return self.kept[1]

    def load(self, dtype):
        if self.kind == "gguf":
            folder, name = os.path.split(os.path.abspath(self.path))
            # Dequantised in f32 first: rounding once, from the exact weights.
            model = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=name, dtype=torch.float32, attn_implementation="eager"
            )
            return model.to(dtype).eval()
        if self.kind == "mlx":
            with tempfile.TemporaryDirectory() as tmp:
                out = tmp + "/dense"
                dequantised_folder(self.path, out, str(dtype).removeprefix("torch."))
                return load(out, dtype)
        nested = read_json(os.path.join(self.path, "config.json"))["model_type"] == "gemma3"
        return load(self.path, dtype, Gemma3ForConditionalGeneration if nested else None)

    def tokenizer(self):
        if self.kind == "gguf":
            folder, name = os.path.split(os.path.abspath(self.path))
            return AutoTokenizer.from_pretrained(folder, gguf_file=name)
        return AutoTokenizer.from_pretrained(self.path)

    def prompts(self):
        """Token ids of real text; for the tiny golden models the golden ids and enough random ones to average over."""
        expected = self.path + ".safetensors" if self.kind == "gguf" else os.path.join(self.path, "expected.safetensors")
        if os.path.exists(expected):
            tensors = load_file(expected)
            golden = [tensors[k].tolist() for k in ("input_ids", "short_input_ids") if k in tensors]
            return golden + [prompt(40, 1000 + i) for i in range(8)]
        tok = self.tokenizer()
        out = [tok(p)["input_ids"] for p in [LONG] + PROMPTS]
        if getattr(tok, "chat_template", None):
            for question in ("Why is the sky dark at night?", "Write a haiku about the sea."):
                text = tok.apply_chat_template(
                    [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
                )
                out.append(tok(text, add_special_tokens=False)["input_ids"])
        return out


def logprobs(model, ids):
    """[T, V] f32, in one pass without a cache."""
    model(input_ids=torch.tensor([[0]]))  # see continued()
    out = model(input_ids=torch.tensor([ids]), use_cache=False)
    return torch.log_softmax(out.logits[0].float(), dim=-1)


def continued(model, ids, following):
    """[len(following), V]: the distribution before each of the following tokens, in one pass, or with a cache token by
    token where the RoPE of early positions depends on how long the text was when they were computed."""
    config = getattr(model.config, "text_config", model.config)
    rope = (config.rope_parameters or {}).get("rope_type")
    if rope not in ("dynamic", "longrope"):
        out = model(input_ids=torch.tensor([ids + following]), use_cache=False, logits_to_keep=len(following) + 1)
        return torch.log_softmax(out.logits[0, :-1].float(), dim=-1)
    model(input_ids=torch.tensor([[0]]))  # a short text resets the lengths that transformers remembers between calls
    rows, past, step = [], None, list(ids)
    for token in following:
        out = model(input_ids=torch.tensor([step]), past_key_values=past, use_cache=True)
        past, step = out.past_key_values, [token]
        rows.append(torch.log_softmax(out.logits[0, -1].float(), dim=-1))
    return torch.stack(rows)


def run_mica(binary, arguments, env=None):
    """The JSON value a mica command prints."""
    done = subprocess.run([binary, *arguments], capture_output=True, env={**os.environ, **(env or {})})
    if done.returncode:
        raise SystemExit(f"mica {' '.join(arguments)[:200]}: exit {done.returncode}: {done.stderr.decode()[-500:].strip()}")
    return json.loads(done.stdout)


def comma(ids):
    return ",".join(map(str, ids))
