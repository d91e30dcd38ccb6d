# SPDX-License-Identifier: Apache-2.0
"""The Python side of mica's backend "mlx_lm": one model, computed by mlx-lm, spoken to in lines of JSON.

The library carries this file and runs it with `python -u -c`. Requests come on stdin, one object a line; each has an "id", and a "cmd":

    load      path, adapter, device, context, memory_budget                     -> info
    generate  text or ids, options, together (number of a batch)                 -> prompt (its ids); then as many tokens as are granted
    chat      messages, tools, variables, name, continued, allow_control, options -> the same
    more      tokens: grants so many more                                       -> token, text, ... and at last end
    classify  texts, labels, prompt, chat, calibrate, logits                    -> one answer a text, then end
    cancel    ends the request of that id
    info, metrics, ping, quit (as does the end of stdin)

Answers begin with {"mica":1,"id":N and go to what was stdout when the process started; whatever else writes to stdout lands on
stderr. A failure is {"error": message, "kind": one of mica's kinds}. A thread reads stdin, so that a request can be cancelled, and life be proved,
while the main thread computes. The main thread gives each running request one step in turn.
"""
import sys

sys.path[:] = [p for p in sys.path if p]  # the folder that the program runs in lends no modules

import collections
import json
import math
import os
import queue
import re
import threading
import time

PROTOCOL = 1
CHUNK = 512  # tokens of one prefill step: a request is cancelled between two
HELD_MOST = 8  # tokens whose text is held back for the sake of a whole character

answers = os.dup(1)
os.dup2(2, 1)
writing = threading.Lock()


def say(request, **members):
    line = json.dumps({"mica": PROTOCOL, "id": request, **members}, separators=(",", ":"), ensure_ascii=False)
    data = memoryview(line.encode("utf-8", "replace") + b"\n")
    with writing:
        while data:
            data = data[os.write(answers, data) :]


class Refused(Exception):
    """What the caller asked for cannot be done."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class Cancelled(Exception):
    pass


def say_error(request, error):
    kind = error.kind if isinstance(error, Refused) else "memory" if isinstance(error, MemoryError) else "io"
    text = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
    say(request, error=text[:400], kind=kind)


# ---- text ---------------------------------------------------------------------------------------------------
class Detokenizer:
    """Text of tokens as it becomes certain: the pieces together are what decoding all of them at once gives."""

    def __init__(self, tokenizer):
        self.tokenizer, self.ids, self.start, self.read = tokenizer, [], 0, 0

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) if ids else ""

    def add(self, token, last=False):
        if token is not None:
            self.ids.append(token)
        before, now = self.decode(self.ids[self.start : self.read]), self.decode(self.ids[self.start :])
        partial = now.endswith("\ufffd") and len(self.ids) - self.read < HELD_MOST
        if len(now) <= len(before) or (partial and not last):
            return ""
        self.start, self.read = self.read, len(self.ids)
        return now[len(before) :]


# Around texts of control tokens in messages, which must stay texts. Characters that Unicode promises never to use.
OPEN, CLOSE = "\ufdd0", "\ufdd1"


class Text:
    """The tokenizer with what chat needs."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer._tokenizer  # what mlx-lm wraps
        self.has_chat = bool(getattr(tokenizer, "has_chat_template", False) or self.tokenizer.chat_template)
        special = sorted((t for t in self.tokenizer.all_special_tokens if t), key=len, reverse=True)
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        special += [t.content for t in added.values() if t.special and t.content not in special]
        special.sort(key=len, reverse=True)
        self.control = re.compile("|".join(re.escape(t) for t in special)) if special else None

    def guard(self, value):
        if isinstance(value, str):
            value = value.replace(OPEN, "").replace(CLOSE, "")
            return self.control.sub(lambda m: OPEN + m.group() + CLOSE, value)
        if isinstance(value, list):
            return [self.guard(v) for v in value]
        if isinstance(value, dict):
            return {k: self.guard(v) for k, v in value.items()}
        return value

    def render(self, messages, chat):
        named = {"chat_template": chat["name"]} if chat.get("name") and isinstance(self.tokenizer.chat_template, dict) else {}
        options = {"tools": chat.get("tools") or None, "tokenize": False, **(chat.get("variables") or {}), **named}
        if chat.get("continued"):
            options["continue_final_message"] = True
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=not chat.get("continued"), **options)

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)

    def encode_plain(self, text):
        backend = self.tokenizer.backend_tokenizer
        backend.encode_special_tokens = True
        try:
            return backend.encode(text, add_special_tokens=False).ids
        finally:
            backend.encode_special_tokens = False

    def encode_guarded(self, text):
        """Control tokens outside of the marks are read as such; the text between two of them is one piece, marks taken away."""
        ids, piece, at, marked = [], "", 0, re.compile(f"{OPEN}(.*?){CLOSE}|({self.control.pattern})", re.S)
        for found in marked.finditer(text):
            piece += text[at : found.start()]
            at = found.end()
            if found.group(2) is None:
                piece += found.group(1)
            else:
                ids += self.encode_plain(piece) + [self.tokenizer.convert_tokens_to_ids(found.group(2))]
                piece = ""
        return ids + self.encode_plain(piece + text[at:])

    def chat(self, chat):
        if not self.has_chat:
            raise Refused("unsupported", "chat: the model has no chat template")
        messages = chat["messages"]
        try:
            if chat.get("allow_control") or not self.control or not self.control.search(json.dumps(messages, ensure_ascii=False)):
                return self.encode(self.render(messages, chat))
            if not hasattr(self.tokenizer, "backend_tokenizer"):
                raise Refused("unsupported", "chat: a message holds a control token, which this tokenizer cannot read as text; allow_control permits it")
            return self.encode_guarded(self.render([{**m, "content": self.guard(m.get("content"))} for m in messages], chat))
        except Refused:
            raise
        except Exception as e:
            raise Refused("argument", f"chat: {type(e).__name__}: {e}")

    def prompt(self, request):
        if "ids" in request:
            return request["ids"]
        return self.chat(request) if request["cmd"] == "chat" else self.tokenizer.encode(request["text"])


# ---- the model ----------------------------------------------------------------------------------------------
def first(config, *names, otherwise=0):
    """A number of the config, which may lie in the part about text."""
    for part in (config, config.get("text_config") or {}):
        for name in names:
            if isinstance(part.get(name), (int, float)) and not isinstance(part.get(name), bool):
                return int(part[name])
    return otherwise


def read_json(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError:
        return {}


def regular_pattern(kinds):
    """p where layer i sees everything exactly if p divides i + 1; None where no p does."""
    for p in range(1, len(kinds) + 2):
        if all((kind == "full_attention") == ((i + 1) % p == 0) for i, kind in enumerate(kinds)):
            return p
    return None


def older_spellings(part):
    """What a config of transformers >= 5 says about positions, in the keys of older ones: mlx-lm's classes for llama, qwen2 and gemma3 (0.32) know
    no "rope_parameters" and compute with their defaults instead."""
    ropes, older = part.get("rope_parameters") or {}, {}
    full = ropes.get("full_attention", ropes)
    if "rope_theta" in full:
        older["rope_theta"] = full["rope_theta"]
    if (full.get("rope_type") or full.get("type") or "default") != "default":
        original = part.get("original_max_position_embeddings")
        older["rope_scaling"] = {**full, **({"original_max_position_embeddings": original} if original else {})}
    if "rope_theta" in ropes.get("sliding_attention", {}):
        older["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
    if "sliding_attention" in ropes and part.get("layer_types"):
        older["sliding_window_pattern"] = regular_pattern(part["layer_types"])
    return {k: v for k, v in older.items() if v is not None and part.get(k) is None}


def positions_for(config):
    """Members of the config that mlx-lm needs in other words, for it to take beside those of the folder."""
    import mlx_lm.utils

    try:
        known = getattr(mlx_lm.utils._get_classes(config)[1], "__dataclass_fields__", {})
    except Exception:  # an architecture that mlx-lm does not have: loading says so
        known = {}
    text = config.get("text_config")
    inner = older_spellings(text) if isinstance(text, dict) else {}
    outer = {} if "rope_parameters" in known else older_spellings(config)
    return {**outer, **({"text_config": {**text, **inner}} if inner else {})}


def as_list(value):
    return value if isinstance(value, list) else [] if value is None else [value]


class Model:
    def __init__(self, request):
        import mlx.core as mx
        import mlx.utils
        import mlx_lm.utils

        self.mx, started, path = mx, time.perf_counter(), request["path"]
        if request.get("device"):
            mx.set_default_device(getattr(mx, request["device"]))
        self.config = read_json(os.path.join(path, "config.json"))
        if not self.config:
            raise Refused("io", f"{path}: no config.json")
        self.check_budget(path, request.get("memory_budget"))
        self.model, tokenizer = mlx_lm.utils.load(path, model_config=positions_for(self.config), adapter_path=request.get("adapter"))
        self.text = Text(tokenizer)
        self.weights = dict(mlx.utils.tree_flatten(self.model.parameters()))
        self.parameters = mlx_lm.utils.get_total_parameters(self.model)
        self.path, self.budget = path, request.get("memory_budget", 0)
        self.layers = len(self.model.layers)
        self.ends = self.find_ends(tokenizer)
        self.info = self.describe()
        self.context = request.get("context") or self.info["context_length"] or 1 << 30
        self.seconds = time.perf_counter() - started
        self.random = 0

    @staticmethod
    def check_budget(path, budget):
        size = sum(e.stat().st_size for e in os.scandir(path) if e.name.startswith("model") and e.name.endswith(".safetensors"))
        if budget and size > budget:
            raise Refused("memory", f"{path}: the weights take {size} bytes, the memory budget is {budget}")

    def find_ends(self, tokenizer):
        text, generation = self.config.get("text_config") or {}, read_json(os.path.join(self.path, "generation_config.json"))
        named = [i for part in (self.config, text, generation) for i in as_list(part.get("eos_token_id"))]
        return set(named) | set(tokenizer.eos_token_ids)

    def describe(self):
        config, get = self.config, lambda *names, **otherwise: first(self.config, *names, **otherwise)
        hidden, heads = get("hidden_size", "n_embd"), get("num_attention_heads", "n_head")
        quantization = config.get("quantization") or config.get("quantization_config") or {}
        floats = collections.Counter(str(w.dtype).split(".")[-1] for w in self.weights.values() if "float" in str(w.dtype))
        dtype = floats.most_common(1)[0][0] if floats else "float32"
        files = [e for e in os.scandir(self.path) if e.name.startswith("model") and e.name.endswith(".safetensors")]
        info = {
            "architecture": config.get("model_type", ""),
            "vocab_size": self.vocab_size(),
            "num_layers": self.layers,
            "hidden_size": hidden,
            "intermediate_size": get("intermediate_size", "n_inner"),
            "num_heads": heads,
            "num_kv_heads": get("num_key_value_heads", otherwise=heads),
            "head_dim": get("head_dim", otherwise=hidden // heads if heads else 0),
            "quant_bits": int(quantization.get("bits") or 0),
            "quant_group": int(quantization.get("group_size") or 0),
            "quant_mode": quantization.get("mode", "affine") if quantization.get("bits") else "",
            "dtype": {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}.get(dtype, dtype),
            "context_length": get("max_position_embeddings", "n_positions", "max_sequence_length"),
            "parameters": self.parameters,
            "bytes_on_disk": sum(e.stat().st_size for e in files),
            "weight_bytes": sum(w.nbytes for w in self.weights.values()),
            "has_chat_template": self.text.has_chat,
        }
        return {**info, **self.describe_cache(info)}

    def describe_cache(self, info):
        """Bytes of keys and values, by the caches that mlx-lm makes."""
        windows = [getattr(c, "max_size", None) for c in self.new_cache()]
        row = 2 * info["num_kv_heads"] * info["head_dim"] * (4 if info["dtype"] == "f32" else 2)
        window = max([w for w in windows if w], default=0)
        return {
            "sliding_window": window,
            "kv_bytes_per_token": row * sum(not w for w in windows),
            "kv_bytes_window": row * sum((w + CHUNK) for w in windows if w),
        }

    def vocab_size(self):
        for name, weight in self.weights.items():
            if name.endswith(("embed_tokens.weight", "wte.weight")):
                return weight.shape[0]
        return first(self.config, "vocab_size", otherwise=len(self.text.tokenizer))

    def new_cache(self):
        from mlx_lm.models.cache import make_prompt_cache

        return make_prompt_cache(self.model)

    def check_ids(self, ids, positions):
        if not ids:
            raise Refused("argument", "the prompt is empty: there is no token to start from")
        if len(ids) > self.context:
            raise Refused("argument", f"the prompt has {len(ids)} tokens, the context {self.context}")
        for i, token in enumerate(ids):
            if not 0 <= token < self.info["vocab_size"]:
                raise Refused("argument", f"token id {token} (number {i}) is outside the vocabulary of {self.info['vocab_size']}")
        needed = self.info["weight_bytes"] + self.info["kv_bytes_window"] + self.info["kv_bytes_per_token"] * min(positions, self.context)
        if self.budget and needed > self.budget:
            raise Refused("memory", f"{positions} positions need {needed} bytes with the weights, the memory budget is {self.budget}")

    def memory(self):
        import resource

        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"active": self.mx.get_active_memory(), "peak": max(self.mx.get_peak_memory(), resident)}


# ---- sampling -----------------------------------------------------------------------------------------------
class Adjust:
    """Logits before the choice: mica's bias, penalties and forbidden ends, which differ in detail from mlx-lm's own. Keeps the
    model's own logits for those who ask for log-probabilities."""

    def __init__(self, mx, options, prompt, ends):
        self.mx, self.o, self.prompt, self.ends, self.kept = mx, options, prompt, sorted(ends), collections.deque()
        self.tokens = None  # so far: versions of mlx-lm differ in how much of the prompt they pass
        bias = options.get("logit_bias") or []
        self.bias_ids = mx.array([i for i, _ in bias], mx.int32) if bias else None
        self.bias = mx.array([-math.inf if b is None else b for _, b in bias], mx.float32) if bias else None
        self.repeat = options.get("repeat_penalty", 0) not in (0, 1)
        self.count = options.get("presence_penalty", 0) or options.get("frequency_penalty", 0)

    def wanted(self):
        o = self.o
        return bool(o.get("logprobs") or self.bias is not None or self.repeat or self.count or o.get("min_tokens"))

    def __call__(self, tokens, logits):
        mx, o = self.mx, self.o
        if self.tokens is None:
            self.tokens = mx.array(self.prompt, mx.int32)
        else:
            self.tokens = mx.concatenate([self.tokens, tokens[-1:].astype(mx.int32)])
        answered = len(self.tokens) - len(self.prompt)
        if o.get("logprobs"):
            self.kept.append(logits)
        logits = logits.astype(mx.float32)
        if self.bias is not None:
            logits = logits.at[:, self.bias_ids].add(self.bias)
        if self.repeat:
            seen = logits[:, self.tokens]
            p = o["repeat_penalty"]
            logits[:, self.tokens] = mx.where(seen > 0, seen / p, seen * p)
        if self.count and answered > 0:
            counts = mx.zeros((logits.shape[-1],)).at[self.tokens[len(self.prompt) :]].add(1)
            logits = logits - (o.get("presence_penalty", 0) * (counts > 0) + o.get("frequency_penalty", 0) * counts)
        if answered < o.get("min_tokens", 0) and self.ends:
            logits[:, mx.array(self.ends)] = -math.inf
        return logits


class Stream:
    """One answer: mlx-lm's own generator, a step at a time, as many as are granted."""

    def __init__(self, worker, request):
        model = worker.model
        self.worker, self.model, self.id, self.o = worker, model, request["id"], request.get("options", {})
        self.ids = model.text.prompt(request)
        self.most = self.o.get("max_tokens", 256)
        model.check_ids(self.ids, len(self.ids) + self.most)
        self.granted, self.generated, self.detokenizer = 0, 0, Detokenizer(model.text.tokenizer)
        self.ends = set(self.o.get("stop_ids") or []) | (set() if self.o.get("ignore_eos") else model.ends)
        self.adjust = Adjust(model.mx, self.o, self.ids, {i for i in self.ends if 0 <= i < model.info["vocab_size"]})
        self.tokens, self.random, self.together = None, self.seed(), request.get("together", 0)
        self.begun, self.waited = False, 0.0  # as a row; seconds of steps that gave it no token
        say(self.id, prompt=self.ids)

    def seed(self):
        seed = self.o.get("seed", 0)
        if not seed:  # a stream like any other
            self.model.random += 1
            seed = self.model.random
        return seed * 0x9E3779B97F4A7C15

    def sampler(self):
        from mlx_lm.sample_utils import make_sampler

        o = self.o
        top_k = o.get("top_k", 0) if o.get("top_k", 0) < self.model.info["vocab_size"] else 0
        return make_sampler(temp=o.get("temperature", 0.0), top_p=o.get("top_p", 0.0), min_p=o.get("min_p", 0.0), top_k=top_k)

    def processors(self):
        return [self.adjust] if self.adjust.wanted() else []

    def start(self):
        from mlx_lm.generate import generate_step

        return generate_step(
            self.model.mx.array(self.ids), self.model.model, max_tokens=self.most, sampler=self.sampler(), prompt_cache=self.model.new_cache(),
            prefill_step_size=CHUNK, logits_processors=self.processors() or None, prompt_progress_callback=self.progress)

    def progress(self, done, total):
        if self.id in self.worker.cancelled:
            raise Cancelled
        say(self.id, progress=done, total=total)

    def next(self):
        """mlx-lm draws from MLX's one random state: each step sets it, so that a stream does not depend on those beside it."""
        if self.o.get("temperature"):
            self.model.mx.random.seed((self.random + self.generated) % (1 << 64))
        if not self.tokens:
            self.tokens = self.start()
        return next(self.tokens)

    def logprobs(self, token):
        mx, most = self.model.mx, self.o.get("logprobs", 0)
        if not most:
            return {}
        row = self.adjust.kept.popleft().reshape(-1).astype(mx.float32)
        row = row - mx.logsumexp(row)
        answer = {"logprob": finite(row[token].item())}
        if most > 0:
            most = min(most, row.size)
            best = mx.argpartition(-row, most - 1)[:most] if most < row.size else mx.arange(row.size)
            pairs = sorted(zip(best.tolist(), row[best].tolist()), key=lambda p: (-p[1], p[0]))
            answer["top"] = [[i, finite(p)] for i, p in pairs]
        return answer

    def step(self):
        """True while there is more to come."""
        if self.id in self.worker.cancelled:
            return self.end("cancelled")
        if len(self.ids) + self.generated > self.model.context:
            return self.end("length")
        started = time.perf_counter()
        try:
            token, own = self.next()
        except Cancelled:
            return self.end("cancelled")
        except StopIteration:
            return self.end("length")
        return self.take(token, own, started)

    def take(self, token, own, started):
        """A token that was chosen, and the log-probabilities that it was chosen from."""
        if math.isnan(own.reshape(-1)[token].item()):
            raise Refused("format", "the model's logits are not finite: its weights hold NaN or infinite values")
        more = self.logprobs(token)
        if token in self.ends:
            return self.end("stop", time.perf_counter() - started)
        self.generated += 1
        self.granted -= 1
        last = self.generated >= self.most
        text = self.detokenizer.add(token, last)
        if self.generated == 1 or last:
            more.update(self.model.memory())
        if last:
            more["end"] = "length"
        seconds, self.waited = time.perf_counter() - started + self.waited, 0.0
        say(self.id, token=token, text=text, seconds=seconds, **more)
        return not last or self.close()

    def close(self):
        if self.tokens:
            self.tokens.close()
        return False

    def end(self, why, seconds=0.0):
        say(self.id, text=self.detokenizer.add(None, True), end=why, seconds=seconds, **self.model.memory())
        return self.close()


class Together:
    """The rows of one batch, in one of mlx-lm's: each step computes a token of every row. Where this mlx-lm has no such thing, or not for
    this model, they are computed in turn like other requests."""

    def __init__(self, worker):
        self.worker, self.rows, self.batch, self.usable = worker, {}, None, True

    def add(self, stream):
        """False if it must go by itself."""
        try:
            from mlx_lm.generate import BatchGenerator

            if self.usable and self.batch is None:
                self.batch = BatchGenerator(stream.model.model, prefill_step_size=CHUNK)
            if self.usable:
                sampler = self.seeded(stream) if stream.o.get("temperature") else None
                number = self.batch.insert([stream.ids], max_tokens=[stream.most], samplers=[sampler], logits_processors=[stream.processors()])[0]
                self.rows[number] = stream
        except Exception as e:
            print(f"rows are computed in turn: {type(e).__name__}: {e}", file=sys.stderr)
            self.usable = False
        return self.usable

    @staticmethod
    def seeded(stream):
        sampler, at = stream.sampler(), iter(range(1 << 62))

        def draw(logprobs):
            stream.model.mx.random.seed((stream.random + next(at)) % (1 << 64))
            return sampler(logprobs)

        return draw

    def ready(self):
        return bool(self.rows) and all(stream.granted > 0 for stream in self.rows.values())

    def remove(self, stream):
        """True if no row is left."""
        for number in [n for n, s in self.rows.items() if s is stream]:
            del self.rows[number]
            self.batch.remove([number])
        return not self.rows

    def give(self, stream, response, started):
        """True while there is more to come."""
        if stream.id in self.worker.cancelled:
            return stream.end("cancelled")
        if len(stream.ids) + stream.generated > stream.model.context:
            return stream.end("length")
        return stream.take(response.token, response.logprobs, started)

    def give_up(self, error):
        """Rows that have not begun to answer may still do so by themselves."""
        rows, self.rows, self.usable = list(self.rows.values()), {}, False
        for stream in rows:
            if stream.generated:
                self.worker.drop(stream, error)
            else:
                stream.together = 0
                stream.adjust.kept.clear()
                stream.adjust.tokens = None

    def step(self):
        started = time.perf_counter()
        try:
            prompts, responses = self.batch.next()
        except Exception as e:
            return self.give_up(e)
        for response in responses:
            stream = self.rows.get(response.uid)
            if stream is None:
                continue
            if response.finish_reason:
                del self.rows[response.uid]
            try:
                if not self.give(stream, response, started):
                    self.worker.drop(stream)
            except Exception as e:
                self.worker.drop(stream, e)
        answered = {response.uid for response in responses}
        for number, stream in self.rows.items():
            if number not in answered:
                stream.waited += time.perf_counter() - started
        for progress in [] if responses else prompts:
            if progress.uid in self.rows:
                say(self.rows[progress.uid].id, progress=progress.progress[0], total=progress.progress[1])


def finite(x):
    return x if math.isfinite(x) else None


# ---- classification -----------------------------------------------------------------------------------------
class Labels:
    """Tokens of a label after a prompt, by the rules of mica's own backend (src/backend/labels.c): those that encoding both together
    gives it. Spaces at the end of the prompt belong to what follows; between two words there is one."""

    def __init__(self, text):
        self.text = text

    @staticmethod
    def context(prompt):
        return prompt.rstrip(" ") or prompt

    @staticmethod
    def joined(before, prompt, label):
        wants = prompt and not label[0].isspace() and (re.match("[0-9A-Za-z.,:;!?)\\]}%]", prompt[-1]))
        return before + (" " if wants else "") + label

    def after(self, before, after):
        first, both = self.text.encode(before), self.text.encode(before + after)
        return both[len(first) :] if len(both) > len(first) and both[: len(first)] == first else self.text.encode(after)

    def ids(self, prompt, context, ids, whole, label):
        """ids: of prompt[:context]; whole: of all of it, BOS and the like included."""
        both = self.text.tokenizer.encode(self.joined(prompt, prompt, label), add_special_tokens=whole)
        if len(both) > len(ids) and both[: len(ids)] == ids:
            return both[len(ids) :]
        return self.after("\n", self.joined(prompt[context:], prompt, label))

    def tail(self, ids):
        """The text after the last control token, and its ids; nothing where they are not each other's encoding."""
        special = set(self.text.tokenizer.all_special_ids) | {i for i, t in self.text.tokenizer.added_tokens_decoder.items() if t.special}
        at = max([i + 1 for i, token in enumerate(ids) if token in special], default=0)
        text = Detokenizer(self.text.tokenizer).decode(ids[at:])
        return (text, ids[at:]) if self.text.encode(text) == ids[at:] else ("", [])


class Classification:
    """One text a step: what all prompts begin with is computed once, each prompt from a copy of its cache, each label's tokens from a copy of
    the prompt's."""

    granted, together = 1, 0

    def __init__(self, worker, request):
        self.worker, self.model, self.id, self.request = worker, worker.model, request["id"], request
        self.texts, self.labels, self.at = request["texts"], request.get("labels") or [], 0
        self.tokens_of, self.calibration = Labels(self.model.text), None
        self.prompts = [self.attempt(text) for text in self.texts]
        self.common, self.cache = self.find_common(), None
        say(self.id, accepted=len(self.texts))

    def prompt(self, text):
        """Its ids and those of each label after it."""
        prompt = self.request["prompt"].replace("{text}", text) if "prompt" in self.request else text
        if self.request.get("chat"):
            ids = self.model.text.chat({"messages": [{"role": "user", "content": prompt}]})
            tail, tail_ids = self.tokens_of.tail(ids) if self.labels else ("", [])
            return ids, [self.label(tail, len(tail), tail_ids, False, label) for label in self.labels]
        context = self.tokens_of.context(prompt) if self.labels else prompt
        ids = self.model.text.tokenizer.encode(context)
        return ids, [self.label(prompt, len(context), ids, True, label) for label in self.labels]

    def label(self, prompt, context, ids, whole, label):
        tokens = self.tokens_of.ids(prompt, context, ids, whole, label)
        if not tokens:
            raise Refused("argument", f"label {json.dumps(label)} has no tokens")
        return tokens

    def attempt(self, text):
        try:
            ids, labels = self.prompt(text)
            self.model.check_ids(ids, len(ids) + max(map(len, labels), default=0))
            return ids, labels
        except Exception as e:
            return e

    def find_common(self):
        prompts = [p[0] for p in self.prompts if not isinstance(p, Exception)]
        common = os.path.commonprefix(prompts) if len(prompts) > 1 else []
        most = min(map(len, prompts), default=1) - 1
        return common[:most] if min(len(common), most) >= 8 else []

    def forward(self, ids, cache, rows=1):
        """Logits after the last `rows` of the ids, in float32."""
        mx, kept = self.model.mx, []
        for at in range(0, len(ids), CHUNK):
            if self.id in self.worker.cancelled:
                raise Cancelled
            logits = self.model.model(mx.array(ids[at : at + CHUNK])[None], cache=cache)[0].astype(mx.float32)
            kept = kept + [logits] if rows > 1 else [logits[-1:]]
            mx.eval(kept[-1], [c.state for c in cache])
        return mx.concatenate(kept)[-rows:]

    def score(self, ids, labels):
        """The next token's logits, and each label's log-probability."""
        import copy

        mx = self.model.mx
        shared = len(self.common) if ids[: len(self.common)] == self.common else 0
        if shared and self.cache is None:
            self.cache = self.model.new_cache()
            self.forward(self.common, self.cache)
        cache = copy.deepcopy(self.cache) if shared else self.model.new_cache()
        after = self.forward(ids[shared:], cache)
        scores = []
        for tokens in labels:
            rows = after
            if len(tokens) > 1:
                rows = mx.concatenate([rows, self.forward(tokens[:-1], copy.deepcopy(cache), len(tokens) - 1)])
            rows = rows - mx.logsumexp(rows, axis=-1, keepdims=True)
            scores.append(mx.take_along_axis(rows, mx.array(tokens)[:, None], axis=-1).sum().item())
        return after[0], scores

    def classify(self, prompt):
        if isinstance(prompt, Exception):
            raise prompt
        if self.request.get("calibrate") and self.calibration is None:
            empty = self.attempt("")
            if isinstance(empty, Exception):
                raise empty
            self.calibration = self.score(*empty)[1]
        after, scores = self.score(*prompt)
        if math.isnan(after.sum().item()):
            raise Refused("format", "the model's logits are not finite: its weights hold NaN or infinite values")
        token = self.model.mx.argmax(after).item()
        answer = {"prompt_tokens": len(prompt[0]), "token": token, "text": Detokenizer(self.model.text.tokenizer).add(token, True)}
        if self.labels:
            answer["logprobs"] = [finite(s) for s in scores]
            if self.calibration:
                answer["calibration"] = [finite(s) for s in self.calibration]
        if self.request.get("logits"):
            answer["logits"] = [finite(x) for x in after.tolist()]
        return answer

    def step(self):
        if self.id in self.worker.cancelled or self.at == len(self.texts):
            say(self.id, end="cancelled" if self.at < len(self.texts) else "stop", **self.model.memory())
            return False
        started = time.perf_counter()
        try:
            answer = self.classify(self.prompts[self.at])
        except Cancelled:
            return True
        except Refused as e:
            answer = {"problem": str(e), "kind": e.kind}
        say(self.id, index=self.at, seconds=time.perf_counter() - started, **answer)
        self.at += 1
        return True


# ---- requests -----------------------------------------------------------------------------------------------
class Worker:
    def __init__(self):
        self.inbox, self.running, self.cancelled, self.model = queue.Queue(), {}, set(), None
        self.batches = {}  # number -> Together
        self.versions = {}

    def read(self):
        """The thread that reads. The process has nothing to save: it ends at once when it is told to, or nobody is there any more."""
        for line in sys.stdin.buffer:
            try:
                request = json.loads(line)
                command, number = request["cmd"], request["id"]
            except (ValueError, KeyError, TypeError) as e:
                say_error(0, e)
                continue
            if command == "ping":
                say(number, pong=True)
            elif command == "quit":
                break
            else:
                if command == "cancel":
                    self.cancelled.add(number)
                self.inbox.put(request)
        os._exit(0)

    def handle(self, request):
        command, number = request["cmd"], request["id"]
        if command == "load":
            self.model = Model(request)
            say(number, info=self.model.info, seconds=self.model.seconds)
        elif command == "more":
            if number in self.running:
                self.grant(self.running[number], request["tokens"])
        elif command == "cancel":
            if number in self.running:
                self.end(number)
            self.cancelled.discard(number)
        elif self.model is None:
            raise Refused("argument", "no model is loaded")
        elif command in ("generate", "chat"):
            self.running[number] = Stream(self, request)
        elif command == "classify":
            self.running[number] = Classification(self, request)
        elif command == "info":
            say(number, info=self.model.info, **self.versions)
        elif command == "metrics":
            say(number, load_seconds=self.model.seconds, running=len(self.running), **self.model.memory())
        else:
            raise Refused("unsupported", f"unknown command {command!r}")

    def grant(self, job, tokens):
        job.granted += tokens
        if job.together and not job.begun:
            job.begun = True
            if not self.batches.setdefault(job.together, Together(self)).add(job):
                job.together = 0

    def drop(self, job, error=None):
        """The request is over."""
        self.running.pop(job.id, None)
        if job.together in self.batches and self.batches[job.together].remove(job):
            del self.batches[job.together]
        if error is not None:
            say_error(job.id, error)

    def end(self, number):
        job = self.running[number]
        if isinstance(job, Stream) and job.together:
            job.end("cancelled")
            self.drop(job)
        else:
            self.step(number)

    def step(self, number):
        job = self.running[number]
        try:
            if not job.step():
                self.drop(job)
        except Exception as e:
            self.drop(job, e)

    def ready(self):
        alone = [n for n, job in self.running.items() if job.granted > 0 and not job.together]
        return alone + [batch for batch in self.batches.values() if batch.ready()]

    def take(self, wait):
        try:
            request = self.inbox.get(wait)
        except queue.Empty:
            return False
        try:
            self.handle(request)
        except Exception as e:
            say_error(request["id"], e)
        return True

    def run(self):
        threading.Thread(target=self.read, daemon=True).start()
        try:
            import importlib.metadata

            self.versions = {"mlx_lm": importlib.metadata.version("mlx-lm"), "mlx": importlib.metadata.version("mlx"), "python": sys.version.split()[0]}
            import mlx_lm  # noqa: F401
        except Exception as e:
            say_error(0, e)
            return
        os.write(answers, b"\n")  # what was printed before this file was read may lack its end
        say(0, hello=PROTOCOL, **self.versions)
        while True:
            ready = self.ready()
            while self.take(wait=not ready):
                ready = self.ready()
            for job in ready:
                if isinstance(job, Together):
                    job.step()
                elif job in self.running:
                    self.step(job)


for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # models are folders: nothing is fetched
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if __name__ == "__main__":
    Worker().run()
