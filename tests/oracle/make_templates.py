# SPDX-License-Identifier: Apache-2.0
"""Golden files for chat templates: what transformers' apply_chat_template makes of template_conversations.py.

    make_templates.py FOLDER_OF_REAL_TEMPLATES FOLDER_OF_REAL_TOKENIZERS

writes golden/templates/: conversations.jsonl (the contexts), real.jsonl (a hash of each text, or the error, for the templates of the folder,
which are not committed), own/*.jinja is read (small templates of our own) and gives own.jsonl with the texts in full; snippets.jsonl has the
texts of template_snippets.py; ids.jsonl a hash of the token ids of each rendered text, and how many control tokens are in it once
transformers has seen to it that messages forge none. The clock stands still at NOW. A refusal is {"error": message, "raised": by raise_exception}.
"""
import datetime
import glob
import json
import os
import sys

from template_conversations import conversations
from template_snippets import CONTEXT, snippets

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(os.path.dirname(HERE), "golden", "templates")
NOW = 1700000000
MASK = (1 << 64) - 1
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def mica_hash(data):
    """As mica_hash(data, size, 0)."""
    def mix(h, v):
        h = ((h ^ v) * 0x9E3779B97F4A7C15) & MASK
        return h ^ (h >> 29)

    h, at = 0xCBF29CE484222325, 0
    for at in range(0, len(data) - 7, 8):
        h = mix(h, int.from_bytes(data[at:at + 8], "little"))
    for byte in data[len(data) // 8 * 8:]:
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return mix(h, len(data) % 8)


def tokenizer():
    import jinja2
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import chat_template_utils

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)

    chat_template_utils.datetime = Clock
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **VARIABLES), jinja2.exceptions.TemplateError


def render(tok, template, context, template_error):
    context = dict(context)
    more = context.pop("vars", {})
    try:
        return {"text": tok.apply_chat_template(context.pop("messages"), chat_template=template, tokenize=False, **context, **more)}
    except Exception as e:  # whatever a template runs into is a refusal
        return {"error": str(e).split("\n")[0], "raised": type(e) is template_error}


def write_lines(name, lines):
    with open(os.path.join(OUT, name), "w", encoding="utf-8") as f:
        for line in lines:
            f.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def results(tok, path, cases, error):
    with open(path, encoding="utf-8") as f:
        template = f.read()
    return [render(tok, template, case["context"], error) for case in cases]


def snippet_lines():
    from transformers.utils.chat_template_utils import _compile_jinja_template
    yield {"context": CONTEXT}
    for source in snippets():
        try:
            text = _compile_jinja_template(source).render(**CONTEXT)
            if " at 0x" in text or "striptags" in source or "self" in source:
                continue  # addresses; what mica does not have
            yield {"source": source, "text": text}
        except Exception as e:
            yield {"source": source, "error": "maximum recursion depth exceeded" if isinstance(e, RecursionError) else str(e).split("\n")[0]}


PAIRS = [("tiny-qwen", "chatml.jinja"), ("tiny-gemma", "chatml.jinja"), ("tiny-llama2", "strict.jinja"), ("tiny-deepseek", "chatml.jinja"),
         ("tiny-llama3", "strict.jinja"), ("qwen3", "Qwen-Qwen3-0.6B.jinja"), ("gemma3", "google-gemma-2-2b-it.jinja"),
         ("llama3_1", "meta-llama-Llama-3.1-8B-Instruct.jinja"), ("sentencepiece_bpe", "strict.jinja")]


def id_lines(cases, templates, tokenizers):
    import struct

    from transformers import PreTrainedTokenizerFast
    for name, template in PAIRS:
        folder = tokenizers if "tiny" not in name else os.path.join(os.path.dirname(OUT), "tokenizers")
        own = os.path.join(OUT, "own", template)
        path = os.path.join(folder, name, "tokenizer.json")
        known = PreTrainedTokenizerFast(tokenizer_file=path).added_tokens_encoder  # another would be added to it
        tok = PreTrainedTokenizerFast(tokenizer_file=path, **{k: v for k, v in VARIABLES.items() if v in known})
        unknown = {k: v for k, v in VARIABLES.items() if v not in known}
        special = {i for i, t in tok.added_tokens_decoder.items() if t.special}
        with open(own if os.path.exists(own) else os.path.join(templates, template), encoding="utf-8") as f:
            source = f.read()
        hashes, control = [], []
        for case in cases:
            context = dict(case["context"])
            more, messages = {**unknown, **context.pop("vars", {})}, context.pop("messages")
            try:
                ids = tok.apply_chat_template(messages, chat_template=source, tokenize=True, return_dict=False, **context, **more)
                clean = tok.apply_chat_template(messages, chat_template=source, tokenize=True, return_dict=False, sanitize_control_tokens=True, **context, **more)
            except Exception:
                hashes.append(None)
                control.append(0)
                continue
            hashes.append(f"{mica_hash(struct.pack(f'<{len(ids)}i', *ids)):016x}")
            control.append(sum(i in special for i in clean))
        yield {"tokenizer": name, "template": template, "ids": hashes, "control": control}


def main():
    os.makedirs(OUT, exist_ok=True)
    tok, error = tokenizer()
    cases = conversations()
    write_lines("conversations.jsonl", cases)
    own = []
    for path in sorted(glob.glob(os.path.join(OUT, "own", "*.jinja"))):
        for case, result in zip(cases, results(tok, path, cases, error)):
            own.append({"template": os.path.basename(path), "case": case["name"], **result})
    write_lines("own.jsonl", own)
    real = []
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "*.jinja"))):
        row = [f"{mica_hash(r['text'].encode()):016x}" if "text" in r else ("!" if r["raised"] else "?") + r["error"][:120] for r in results(tok, path, cases, error)]
        real.append({"template": os.path.basename(path), "results": row})
    write_lines("real.jsonl", real)
    write_lines("snippets.jsonl", snippet_lines())
    write_lines("ids.jsonl", id_lines(cases, sys.argv[1], sys.argv[2]))
    refused = sum(r[0] in "!?" for line in real for r in line["results"])
    print(f"{len(cases)} conversations, {len(real)} real templates, {refused} of {len(cases) * len(real)} refused", file=sys.stderr)


if __name__ == "__main__":
    main()
