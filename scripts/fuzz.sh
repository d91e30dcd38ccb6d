#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every libFuzzer program of a build folder for some seconds each, from its committed corpus. New inputs are kept
# in the build folder; a crash is copied to where the message says and ends the run with status 1.
#   scripts/fuzz.sh BUILD SECONDS [PARSER…]
set -eu
build=$1
seconds=$2
shift 2
source=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || set -- $(cd "$build" && ls | sed -n 's/^fuzz_\([a-z0-9_]*\)$/\1/p')
status=0
for parser; do
    work=$build/corpus/$parser
    mkdir -p "$work" "$build/findings"
    echo "== $parser: $seconds s"
    "$build/fuzz_$parser" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 -close_fd_mask=3 \
        -artifact_prefix="$build/findings/$parser-" "$work" "$source/tests/fuzz/corpus/$parser" >"$work.log" 2>&1 ||
        { status=1; tail -40 "$work.log"; }
    grep -E 'stat::number_of_executed_units|DONE' "$work.log" | tail -2 || true
done
[ $status = 0 ] && echo "no findings" || echo "findings are in $build/findings"
exit $status
