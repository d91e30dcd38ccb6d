# SPDX-License-Identifier: Apache-2.0
"""Compares `mica tokenize` with Hugging Face on a large made-up corpus; exits 1 on any difference.

    compare_tokenizers.py build/mica FOLDER_OR_GGUF... [--chars 2000000] [--large 1000000] [--seed 1] [--show 5]

The reference is the package `tokenizers` on FOLDER/tokenizer.json, or transformers' reading of a GGUF file. Compared:
encode; encode --no-special-tokens; encode --plain (control tokens in the text as text, as tokenizers'
encode_special_tokens; non-special added tokens still match); --decode of the encoded ids and of random ids, which
keeps control tokens (skip_special_tokens=False) and shows invalid UTF-8 as U+FFFD the way the decoder there does.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import time

from corpus import Corpus, lines
from tokenizers import Tokenizer


def reference(path):
    if os.path.isdir(path):
        return Tokenizer.from_file(os.path.join(path, "tokenizer.json"))
    from transformers import AutoTokenizer

    folder, name = os.path.split(os.path.abspath(path))
    return AutoTokenizer.from_pretrained(folder, gguf_file=name).backend_tokenizer


def corpus_for(tok, seed):
    added = tok.get_added_tokens_decoder()
    ids = [i for i in range(tok.get_vocab_size()) if tok.id_to_token(i) is not None]
    return Corpus(seed, (t.content for t in added.values()), lambda x: tok.decode(x, skip_special_tokens=False), ids), ids


def mica(binary, model, values, *flags):
    """Runs one process over all values: JSON in, JSON out, a line each."""
    start = time.time()
    data = "".join(json.dumps(v, ensure_ascii=bool(i & 1)) + "\n" for i, v in enumerate(values)).encode()
    done = subprocess.run([binary, "tokenize", model, "--jsonl", *flags], input=data, capture_output=True)
    if done.returncode:
        raise SystemExit(f"mica tokenize {' '.join(flags)}: exit {done.returncode}: {done.stderr.decode()[-500:]}")
    out = [json.loads(line) for line in done.stdout.decode().split("\n") if line]
    return out, time.time() - start


def report(what, inputs, want, got, seconds, show):
    bad = [i for i in range(len(want)) if i >= len(got) or want[i] != got[i]]
    size = sum(len(x) for x in inputs)
    note = "" if len(got) == len(want) else f", {len(got)} answers to {len(want)} lines"
    print(f"  {what:28} {len(want):6} lines {size:8} {'characters' if isinstance(inputs[0], str) else 'ids':10} {seconds:6.2f} s:"
          f" {len(bad)} differences{note}", flush=True)
    for i in bad[:show]:
        mine = got[i] if i < len(got) else None
        k = next((k for k, (a, b) in enumerate(zip(want[i], mine or [])) if a != b), min(len(want[i]), len(mine or [])))
        low = max(0, k - 4)
        print(f"    line {i}: {ascii(inputs[i])[:300]}\n      from {low}: want {ascii(want[i][low:k + 8])}\n      {'':>{len(str(low))}}       got {ascii((mine or [])[low:k + 8])}")
    return len(bad)


def encode(tok, texts, specials):
    return [e.ids for e in tok.encode_batch(texts, add_special_tokens=specials)]


def compare(binary, model, options):
    tok = reference(model)
    corpus, ids = corpus_for(tok, options.seed)
    texts = lines(corpus, options.chars, options.large)
    print(f"{model}: {len(texts)} lines, {sum(map(len, texts))} characters")
    bad = 0
    encoded = encode(tok, texts, True)
    bad += report("encode", texts, encoded, *mica(binary, model, texts), options.show)
    bad += report("encode --no-special-tokens", texts, encode(tok, texts, False), *mica(binary, model, texts, "--no-special-tokens"), options.show)
    tok.encode_special_tokens = True
    bad += report("encode --plain", texts, encode(tok, texts, True), *mica(binary, model, texts, "--plain"), options.show)
    tok.encode_special_tokens = False
    rng = random.Random(options.seed)
    drawn = [[rng.choice(ids) for _ in range(rng.randrange(0, 24))] for _ in range(20000)]
    bytes_ = [i for i in ids if tok.id_to_token(i).startswith("<0x")] or ids[:300]
    drawn += [[rng.choice(bytes_) for _ in range(rng.randrange(1, 9))] for _ in range(5000)]
    for what, rows in (("decode encoded", encoded), ("decode random ids", drawn)):
        want = tok.decode_batch(rows, skip_special_tokens=False)
        bad += report(what, rows, want, *mica(binary, model, rows, "--decode"), options.show)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mica")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--chars", type=int, default=2000000)
    parser.add_argument("--large", type=int, default=1000000, help="length of the line of one letter")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=5)
    options = parser.parse_args()
    bad = sum(compare(options.mica, m, options) for m in options.models)
    print(f"{bad} differences")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
