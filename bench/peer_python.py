#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One run of a peer that is a Python library, for peers.py: prefill of random ids and then decoding, some sequences at
once. Prints one line of JSON: {"prefill": tokens/s, "decode": tokens/s}. Both run once before on a short prompt.

    peer_python.py transformers FOLDER …     bf16 as stored, on PyTorch
    peer_python.py openvino FOLDER …         a folder exported by optimum-intel
"""
import argparse
import json
import sys
import time


class Transformers:
    def __init__(self, args):
        import torch
        import transformers
        torch.set_num_threads(args.threads)
        self.torch = torch
        self.model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
        self.vocab = self.model.config.get_text_config().vocab_size

    def start(self):
        self.past = None

    def step(self, ids):
        """ids [B, T] as lists; logits of the last position only."""
        with self.torch.inference_mode():
            out = self.model(input_ids=self.torch.tensor(ids), past_key_values=self.past, use_cache=True, logits_to_keep=1)
            self.past = out.past_key_values
            return out.logits[:, -1].argmax(-1)


class OpenVINO:
    """The exported graph itself, without optimum: it is stateful, and takes ids, mask, positions and beam numbers."""

    def __init__(self, args):
        import numpy
        import openvino
        self.np = numpy
        core = openvino.Core()
        properties = {"INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY"}
        core.set_property("CPU", {**properties, **dict(s.split("=", 1) for s in args.set)})
        model = core.read_model(args.model + "/openvino_model.xml")
        with open(args.model + "/config.json") as f:
            self.vocab = json.load(f)["vocab_size"]
        self.last_logits_only(model)
        self.names = {n for i in model.inputs for n in i.names}
        self.request = core.compile_model(model, "CPU").create_infer_request()

    @staticmethod
    def last_logits_only(model):
        """Puts a slice before the head, as OpenVINO's own pipelines do: a prefill needs one row of logits."""
        import openvino.opset13 as ops
        node = model.output("logits").get_node()
        while node.get_type_name() != "MatMul":
            node = node.input_value(0).get_node()
        last = ops.slice(node.input_value(0), [-1], [2**31 - 1], [1], [1])
        node.input(0).replace_source_output(last.output(0))
        model.validate_nodes_and_infer_types()

    def start(self):
        self.request.reset_state()
        self.done = 0

    def step(self, ids):
        np = self.np
        ids = np.array(ids, dtype=np.int64)
        batch, n = ids.shape
        inputs = {"input_ids": ids, "attention_mask": np.ones((batch, self.done + n), dtype=np.int64),
                  "position_ids": np.arange(self.done, self.done + n, dtype=np.int64)[None, :].repeat(batch, 0),
                  "beam_idx": np.arange(batch, dtype=np.int32)}
        self.request.infer({k: v for k, v in inputs.items() if k in self.names})
        self.done += n
        return self.request.get_output_tensor(0).data[:, -1]


def measure(engine, prompt, decode, batch):
    """Seconds of the prefill and of the decoding."""
    seed = [12345]

    def draw(n):
        rows = []
        for _ in range(batch):
            row = []
            for _ in range(n):
                seed[0] = (seed[0] * 1103515245 + 12345) % 2**31
                row.append(seed[0] // 65536 % engine.vocab)
            rows.append(row)
        return rows

    engine.start()
    ids, steps = draw(prompt), [draw(1) for _ in range(decode)]
    started = time.perf_counter()
    engine.step(ids)
    middle = time.perf_counter()
    for step in steps:
        engine.step(step)
    return middle - started, time.perf_counter() - middle


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", choices=["transformers", "openvino"])
    parser.add_argument("model")
    for name in ("threads", "prompt", "decode", "batch"):
        parser.add_argument("--" + name, type=int, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a property of OpenVINO's CPU device")
    args = parser.parse_args()
    engine = (Transformers if args.backend == "transformers" else OpenVINO)(args)
    measure(engine, min(args.prompt, 16), 2, args.batch)
    prefill, decode = measure(engine, args.prompt, args.decode, args.batch)
    json.dump({"prefill": args.prompt * args.batch / prefill, "decode": args.decode * args.batch / decode}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
