# SPDX-License-Identifier: Apache-2.0
"""Golden token ids: lines of tests/golden/tokenizers/<name>.jsonl.

    make_tokenizers.py [NAME=FOLDER_OR_GGUF ...]

Without arguments only the tiny tokenizers are made: small trained vocabularies that between them use every component
of tokenizer.json that mica reads, each as <name>/tokenizer.json beside <name>.jsonl. With arguments, lines for real
tokenizers that are too large to commit. A line is {"text", "ids", "ids_no_special", "decoded"} and, where it differs
from ids, "ids_plain" (control tokens in the text read as text). "decoded" is decode(ids, skip_special_tokens=False).
"""
import json
import os
import random
import sys

from compare_tokenizers import corpus_for, reference
from corpus import CODE, PROSE, degenerate
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden", "tokenizers")
R1 = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
R2 = R1.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
O200K = (
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
DEEPSEEK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
SPM_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def split(pattern, behavior="isolated"):
    return pre_tokenizers.Split(Regex(pattern), behavior)


def byte_level(regex=False, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def special(*contents, **kw):
    return [AddedToken(c, special=True, normalized=False, **kw) for c in contents]


def train(tok, size, alphabet=(), reserved=()):
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(reserved), initial_alphabet=list(alphabet), show_progress=False,
        limit_alphabet=400, max_token_length=8,
    )
    tok.train_from_iterator([p for p in PROSE for _ in range(3)] + CODE * 3, trainer)
    return tok


def byte_bpe(pre, normalizer=None, size=520, prefix="", **model):
    tok = Tokenizer(models.BPE(**model))
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizers.Sequence(pre) if len(pre) > 1 else pre[0]
    tok.decoder = decoders.ByteLevel()
    return train(tok, size, pre_tokenizers.ByteLevel.alphabet())


def spm_bpe(normalizer, pre, decoder, size=520, fallback=True, **model):
    """SentencePiece style: characters, with a token for each byte that no character covers."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=fallback, **model))
    if normalizer:
        tok.normalizer = normalizer
    if pre:
        tok.pre_tokenizer = pre
    tok.decoder = decoder
    bytes_ = [f"<0x{b:02X}>" for b in range(256)] if fallback else []
    train(tok, size + len(bytes_), (), ["<unk>", "<s>", "</s>", *bytes_])
    data = json.loads(tok.to_str())  # byte tokens belong to the vocabulary, they are not added tokens
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(data))


def template(tok, text, *names):
    tok.post_processor = processors.TemplateProcessing(
        single=text, pair=text + " $B:1", special_tokens=[(n, tok.token_to_id(n)) for n in names]
    )
    return tok


def smollm():
    tok = byte_bpe([pre_tokenizers.Digits(individual_digits=True), byte_level(regex=True)])
    tok.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    return tok


def qwen():
    tok = byte_bpe([split(R1), byte_level()], normalizers.NFC())
    tok.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tok.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


def llama3():
    tok = byte_bpe([split(R2), byte_level()], ignore_merges=True)
    tok.add_special_tokens(special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>"))
    inner = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair=None, special_tokens=[("<|begin_of_text|>", tok.token_to_id("<|begin_of_text|>"))]
    )
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), inner])
    return tok


def llama2():
    norm = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok = spm_bpe(norm, None, decoders.Sequence([*SPM_DECODER, decoders.Strip(" ", 1, 0)]), fuse_unk=True)
    return template(tok, "<s> $A", "<s>")


def gemma():
    pre = pre_tokenizers.Split(" ", "merged_with_previous")
    tok = spm_bpe(normalizers.Replace(" ", "▁"), pre, decoders.Sequence(SPM_DECODER), fuse_unk=True)
    tok.add_special_tokens(special("<start_of_turn>", "<end_of_turn>"))
    tok.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("\n\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    return template(tok, "<s> $A", "<s>")


def metaspace(scheme, do_split):
    decoder = decoders.Metaspace(replacement="▁", prepend_scheme=scheme, split=do_split)
    pre = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=do_split)
    tok = spm_bpe(None, pre, decoder, fallback=scheme != "always", fuse_unk=scheme == "first")
    tok.add_special_tokens(special("<|x|>"))
    return template(tok, "<s> $A </s>", "<s>", "</s>")


def deepseek():
    pre = [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK), byte_level()]
    tok = byte_bpe(pre)
    tok.normalizer = normalizers.Sequence([])
    tok.add_special_tokens(special("<｜begin▁of▁sentence｜>"))
    tok.add_tokens([AddedToken("<think>", normalized=True), AddedToken("</think>", normalized=True)])
    return template(tok, "<｜begin▁of▁sentence｜> $A", "<｜begin▁of▁sentence｜>")


def o200k():
    tok = byte_bpe([split(O200K), byte_level()], ignore_merges=True)
    tok.add_special_tokens(special("<|start|>", "<|message|>"))
    return tok


def added():
    """Added tokens with every flag, overlapping each other, over a normaliser that can touch them."""
    tok = byte_bpe([byte_level(regex=True, prefix=True)], normalizers.Sequence([normalizers.NFC(), normalizers.Replace("--", "—")]))
    tok.add_special_tokens(special("<l>", lstrip=True) + special("<r>", rstrip=True) + special("<lr>", lstrip=True, rstrip=True))
    tok.add_special_tokens(special("<w>", single_word=True) + special("cat", single_word=True) + special("<l><r>", "ab", "abc"))
    tok.add_tokens([AddedToken("é", normalized=True), AddedToken("—", normalized=True), AddedToken("--", normalized=False),
                    AddedToken("dog", normalized=True, single_word=True), AddedToken("  ", normalized=True, lstrip=True)])
    return tok


def behaviours():
    """The other behaviours of Split, and invert."""
    pre = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.Split(Regex("[,;]"), "merged_with_next"),
        pre_tokenizers.Split("-", "merged_with_previous"), pre_tokenizers.Split(Regex("[.!?]"), "contiguous"),
        pre_tokenizers.Split(Regex(r"\p{L}+|[^\p{L}]+"), "removed", invert=True), byte_level(),
    ])
    return byte_bpe([pre])


TINY = {
    "tiny-smollm": smollm, "tiny-qwen": qwen, "tiny-llama3": llama3, "tiny-llama2": llama2, "tiny-gemma": gemma,
    "tiny-metaspace-first": lambda: metaspace("first", True), "tiny-metaspace-always": lambda: metaspace("always", False),
    "tiny-metaspace-never": lambda: metaspace("never", True), "tiny-deepseek": deepseek, "tiny-o200k": o200k,
    "tiny-added": added, "tiny-behaviours": behaviours,
}
EXTRA = ["<l> <r>x <lr> y", " <l>  <l><r>  z", "cat concat cat. the cat", "dog dogs hotdog dog", "abcd ab abc", "é e\u0301 --—--- a", "   x"]


def as_strings(tok):
    """Merges spelled "a b", the older spelling of the same thing."""
    data = json.loads(tok.to_str())
    data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
    return json.dumps(data, ensure_ascii=False)


def golden(tok, name, count, width, out=OUT):
    corpus, _ = corpus_for(tok, 20)
    texts = [t for t in degenerate(0) if len(t) <= width] + (EXTRA if name == "tiny-added" else [])
    while len(texts) < count:
        line = corpus.line()
        start = random.Random(len(texts)).randrange(max(1, len(line) - width + 1))
        texts.append(line[start:start + width])
    rows = []
    for text in texts:
        row = {"text": text, "ids": tok.encode(text).ids, "ids_no_special": tok.encode(text, add_special_tokens=False).ids}
        row["decoded"] = tok.decode(row["ids"], skip_special_tokens=False)
        tok.encode_special_tokens = True
        plain = tok.encode(text).ids
        tok.encode_special_tokens = False
        if plain != row["ids"]:
            row["ids_plain"] = plain
        rows.append(row)
    path = os.path.join(out, name + ".jsonl")
    with open(path, "w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"{name:24} {len(rows)} lines, {sum('ids_plain' in r for r in rows)} with plain ids, {os.path.getsize(path) // 1024} KiB")


def main():
    os.makedirs(OUT, exist_ok=True)
    for argument in sys.argv[1:]:
        name, path = argument.split("=", 1)
        golden(reference(path), name, 150, 44)
    if sys.argv[1:]:
        return
    for name, make in TINY.items():
        folder = os.path.join(OUT, name)
        os.makedirs(folder, exist_ok=True)
        tok = make()
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
            f.write(as_strings(tok) if name in ("tiny-smollm", "tiny-llama2") else tok.to_str())
        golden(reference(folder), name, 84, 56)


if __name__ == "__main__":
    main()
