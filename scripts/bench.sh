#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every bench program and a model of random weights, with the exact commands, into one file per kind of CPU:
# BUILD/bench-<cpu>.txt. `make bench` builds them first. Timings mean something on an otherwise idle machine only.
set -eu
build=${BUILD:-build}
cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1 | tr -cs 'A-Za-z0-9' '-' | sed 's/-$//')
out=$build/bench-${cpu:-unknown}.txt
: >"$out"
run() {
    echo "# $*" | tee -a "$out"
    "$@" | tee -a "$out"
}
for bench in "$build"/bench/bench_*; do
    [ -x "$bench" ] && [ -f "$bench" ] && run "$bench"
done
run "$build/mica" info
run "$build/mica" bench --random gemma3-1b --bits 4 --prefill 512 --decode 64
echo "written to $out"
