#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every bench program briefly and models of random weights, with the exact commands, into one file per kind of CPU:
# BUILD/bench-<cpu>.txt, in less than three minutes. `make bench` builds them first. Timings mean something on an otherwise
# idle machine only; bench/README.md says how to read them, and how to run one program at length.
set -eu
build=${BUILD:-build}
cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1 | tr -cs 'A-Za-z0-9' '-' | sed 's/-$//')
out=$build/bench-${cpu:-unknown}.txt
: >"$out"
run() {
    echo "# $*" | tee -a "$out"
    { "$@" || echo "failed: status $?"; } | tee -a "$out"
    case $(tail -n 1 "$out") in "failed: "*) exit 1 ;; esac
}
run "$build/mica" info
run "$build/bench/bench_limits"
run "$build/bench/bench_matmul" --quick
run "$build/bench/bench_rows" --quick
run "$build/bench/bench_micro"
run "$build/bench/bench_tokenizer" README.md tests/golden/tokenizers/tiny-llama3 tests/golden/tokenizers/tiny-gemma
for shape in gemma3-1b qwen3-0.6b llama3.2-1b; do
    run "$build/mica" bench --random $shape --bits 4 --prefill 512 --decode 48 --repeat 1
done
run "$build/mica" bench --random llama3.2-1b --bits 4 --prefill 0 --decode 16 --batch 8 --repeat 1
echo "written to $out"
