# SPDX-License-Identifier: Apache-2.0
"""Training data as mlx_lm/tuner/datasets.py reads it, for tests/test_train_data.c.

writes golden/data/train.jsonl (the lines below) and golden/data/expected.jsonl: per line of it and template (a file of golden/data or
golden/chat) {"line", "template", "ids", "offset": with mask_prompt, or null if that fails} or {"line", "template", "error": true}.
"""
from types import SimpleNamespace
from pathlib import Path

from common import *

OUT = os.path.join(GOLDEN, "data")
TOOLS = [{"name": "weather", "parameters": {"limit": 1.0, "tiny": 1e-7, "place": {"type": "string"}}}]


def says(role, content, **more):
    return {"role": role, "content": content, **more}


USER, ANSWER = says("user", "the quick brown fox"), says("assistant", "jumps over\n the lazy dog")
LINES = [
    {"text": "the quick brown fox jumps over the lazy dog"},
    {"text": "ends with its own </s>"},
    {"text": "<s>control tokens</s> are read in a text"},
    {"text": "späte Grüße, 你好 \U0001F600 \"quoted\" \\ and \n new\tlines \u0000."},
    {"text": ""},
    {"text": " \n "},
    {"prompt": "the quick", "completion": " brown fox"},
    {"prompt": "", "completion": "on its own"},
    {"prompt": "nothing follows", "completion": ""},
    {"prompt": "with tools", "completion": "x", "tools": TOOLS},
    {"prompt": "both", "completion": "pair wins", "text": "not this", "messages": [USER]},
    {"messages": [USER, ANSWER]},
    {"messages": [says("system", "be brief"), USER, ANSWER, says("user", "and then?"), says("assistant", "in the end it runs")]},
    {"messages": [USER, ANSWER, says("user", "nothing answers")]},
    {"messages": [USER, ANSWER], "tools": TOOLS},
    {"messages": [USER, ANSWER], "tools": None, "text": "not this"},
    {"messages": [USER, ANSWER], "mood": "is no variable", "add_generation_prompt": True},
    {"messages": [USER, says("assistant", "  blanks around  \n"), USER, says("assistant", "\n\nmore\n")]},
    {"messages": [USER, says("assistant", "first, first", reasoning_content="hm"), USER, says("assistant", "last", reasoning_content="so")]},
    {"messages": [USER, ANSWER, ANSWER, USER, ANSWER]},
    {"messages": [says("assistant", "begins"), USER, says("assistant", "ends")]},
    {"messages": [USER]},
    {"messages": [says("emperor", "who?"), ANSWER]},
    {"messages": [says("user", "späte Grüße, 你好"), says("assistant", "\U0001F600 int main(void) { return 0; }\n")]},
]
TEMPLATES = ["chat/chat_template.jinja", "data/turns.jinja", "data/thinking.jinja"]


def process(tok, line, mask):
    from mlx_lm.tuner.datasets import create_dataset

    return create_dataset([line], tok, SimpleNamespace(mask_prompt=mask)).process(line)


def case(tok, i, template):
    out = {"line": i + 1, "template": template}
    try:
        ids, _ = process(tok, LINES[i], False)
    except Exception:  # whatever goes wrong is a bad line
        return {**out, "error": True}
    try:
        offset = process(tok, LINES[i], True)[1]
    except Exception:
        offset = None
    return {**out, "ids": list(map(int, ids)), "offset": offset}


if __name__ == "__main__":
    from mlx_lm.tokenizer_utils import load

    tok = load(Path(GOLDEN) / "models" / "llama-f32")
    with open(os.path.join(OUT, "train.jsonl"), "w", encoding="utf-8") as f:
        for i, line in enumerate(LINES):
            f.write(json.dumps(line, ensure_ascii=i % 2 == 0) + "\n")
    with open(os.path.join(OUT, "expected.jsonl"), "w", encoding="utf-8") as f:
        for template in TEMPLATES:
            tok._tokenizer.chat_template = Path(GOLDEN, template).read_text()
            tok.has_chat_template = True
            for i in range(len(LINES)):
                f.write(json.dumps(case(tok, i, template), separators=(",", ":")) + "\n")
