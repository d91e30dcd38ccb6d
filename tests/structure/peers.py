# SPDX-License-Identifier: Apache-2.0
"""The comparison scripts on canned output of every kind of engine: what it reads, and the table and plot it writes."""
import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(sys.argv.pop(1), "bench"))
sys.dont_write_bytecode = True
import peers  # noqa: E402
import peers_report  # noqa: E402
import peers_run  # noqa: E402
import train_peers  # noqa: E402

MICA = ('[{"test":"decode","tokens":32,"batch":2,"depth":100,"seconds":[2.0],"depth_seconds":[4.0],"tokens_per_second":32}]')
LLAMA = """main: n_kv_max = 512, n_batch = 2048
|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|   512 |      1 |    1 |    513 |    3.250 |   157.54 |    0.024 |    41.67 |    3.274 |   156.69 |
"""
LIMITS = "limit,level,threads,value,unit\nread,,1,28.0,GB/s\nread,,2,33.0,GB/s\nbf16,avx512,2,458.0,GFLOP/s\nf32,avx2,2,225.0,GFLOP/s\n"
CSV = """machine,date,model,metric,engine,run,value,unit,command
m,2026-01-02,,limit read 2,machine,1,30,GB/s,limits
m,2026-01-02,,limit bf16 avx512 2,machine,1,458,GFLOP/s,limits
m,2026-01-02,gemma3-1b,decode,mica,1,40,tokens/s,mica bench
m,2026-01-02,gemma3-1b,decode,other,1,20,tokens/s,other
m,2026-01-02,gemma3-1b,decode,mica,2,44,tokens/s,mica bench
m,2026-01-02,gemma3-1b,decode,mica,3,42,tokens/s,mica bench
m,2026-01-02,gemma3-1b,decode,fast,1,35,tokens/s,fast
m,2026-01-02,gemma3-1b,read decode,machine,1,45,GB/s,limits
m,2026-01-02,gemma3-1b,busy,mica,1,21,tokens/s,mica bench
m,2026-01-02,smollm2-135m,start,mica,1,0.1,s,mica generate
m,2026-01-02,smollm2-135m,start,fast,1,0.3,s,fast
"""
TRAIN = """machine,date,model,metric,engine,run,value,unit,command
m,2026-01-02,,limit bf16 avx512 2,machine,1,458,GFLOP/s,limits
m,2026-01-02,,limit f32 avx2 2,machine,1,225,GFLOP/s,limits
m,2026-01-02,smollm2-135m,lora,mica,1,600,tokens/s,mica train
m,2026-01-02,smollm2-135m,lora rss,mica,1,700,MiB,mica train
m,2026-01-02,smollm2-135m,lora predicted,mica,1,690,MiB,mica train
m,2026-01-02,smollm2-135m,lora,peft,1,300,tokens/s,peft
m,2026-01-02,smollm2-135m,lora rss,peft,1,1400,MiB,peft
m,2026-01-02,smollm2-135m,lora 4-bit,mica,1,570,tokens/s,mica train
m,2026-01-02,smollm2-135m,lora 4-bit rss,mica,1,350,MiB,mica train
"""


class Peers(unittest.TestCase):
    def test_parsing(self):
        self.assertEqual(peers.parse_mica(MICA), {"decode": 32, "prefill": 50})
        self.assertEqual(peers.parse_llama(LLAMA), {"prefill": 157.54, "decode": 41.67})
        self.assertEqual(peers.parse_python('a warning\n{"prefill": 1.5, "decode": 2}\n'), {"prefill": 1.5, "decode": 2})
        self.assertEqual(peers_run.parse_limits(LIMITS)[("read", "", 2)], (33.0, "GB/s"))
        self.assertEqual(peers_run.parse_measure('noise\nmeasure: {"seconds":0.5,"status":0}\n')["seconds"], 0.5)
        with self.assertRaises(ValueError):
            peers.parse_llama("error: unable to load model")
        with self.assertRaises(ValueError):
            peers_run.parse_measure("nothing")

    def test_limits(self):
        # 1 GB of traffic at 1 GB/s; a prefill without attention would be compute alone
        decode = peers_report.limit("llama3.2-1b", "decode", 1e9, 1e12)
        self.assertAlmostEqual(decode * 695e6, 1e9, delta=5e6)
        self.assertLess(peers_report.limit("llama3.2-1b", "decode2048", 1e9, 1e12), decode)
        self.assertAlmostEqual(peers_report.limit("llama3.2-1b-bf16", "decode", 1e9, 1e12) / decode, 4.5 / 16, delta=0.01)
        self.assertLess(peers_report.limit("gemma3-1b", "prefill2048", 1e9, 1e12), peers_report.limit("gemma3-1b", "prefill512", 1e9, 1e12))
        self.assertGreater(peers_report.limit("gemma3-1b", "batch8", 1e9, 1e12), peers_report.limit("gemma3-1b", "decode", 1e9, 1e12))
        self.assertIsNone(peers_report.limit("unknown", "decode", 1e9, 1e12))

    def test_report(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "m.csv")
            with open(path, "w") as f:
                f.write(CSV)
            about, table = peers_report.read(path)
        self.assertEqual(about, ("m", "2026-01-02"))
        rows = {(r[0], r[1]): r for r in peers_report.summarise(table)}
        self.assertAlmostEqual(rows[("gemma3-1b", "decode")][4], 42 / 35)
        self.assertAlmostEqual(rows[("smollm2-135m", "start")][4], 3)
        text = peers_report.markdown(about, table)
        self.assertIn("| gemma3-1b | decode | tokens/s | 42.0 | 20.0 (1) | 35.0 (1) | **1.20** |", text)
        self.assertEqual(peers_report.limits_of(table)("gemma3-1b", "decode"), (45e9, 458e9))
        self.assertEqual(peers_report.limits_of(table)("gemma3-1b", "busy"), (30e9, 458e9))
        self.assertIn("keeps of its decoding speed: mica 0.50.", text)
        plot = peers_report.svg(about, table)
        self.assertTrue(plot.startswith("<svg") and plot.endswith("</svg>\n"))
        self.assertIn("gemma3-1b decode", plot)

    def test_training(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "m.csv")
            with open(path, "w") as f:
                f.write(TRAIN)
            rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in train_peers.markdown(path).splitlines() if line.startswith("| smollm2")]
            train_peers.write_text({}, folder)
            for name in ("data", "mixed"):
                with open(os.path.join(folder, name, "train.jsonl"), encoding="utf-8") as f:
                    self.assertTrue(all(json.loads(line)["text"] for line in f))
        self.assertEqual(rows[0][:11], ["smollm2-135m", "lora", "1", "600.0", "300.0", "**2.00**", "", "700", "690", "1400", "**0.50**"])
        self.assertEqual(rows[1][:11], ["smollm2-135m", "lora 4-bit", "1", "570.0", "300.0", "**1.90**", "0.95", "350", "", "1400", "**0.25**"])
        for case in train_peers.CASES:
            self.assertGreater(train_peers.operations("gemma3-1b", case), 2e9)
        self.assertGreater(train_peers.operations("gemma3-1b", "lora checkpointed"), train_peers.operations("gemma3-1b", "lora"))


if __name__ == "__main__":
    unittest.main()
