#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fine-tunes SmolLM2-135M on a small data set and shows what changed: the commands of docs/tutorial-finetune.md, one after another. `make tutorial`
# calls it after the build. Everything it writes is in TUTORIAL (default: build/tutorial).
set -eu
build=${BUILD:-build}
work=${TUTORIAL:-$build/tutorial}
order="Good evening, Anna here. Could you make two large coffees and a bagel with extra cheese for 8:15?"
here=$(dirname "$0")

step() { printf '\n== %s\n' "$*"; }
run() { # shows a command, and runs it
    printf '\n$'
    for word; do case $word in *' '*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac; done
    printf '\n'
    "$@"
}
mica() { run "$build/mica" "$@"; }
exact() { # how many of the test's answers are exactly right
    rm -f "$work/answers.jsonl"
    "$build/mica" batch smollm2-135m "$@" -n 120 --quiet <"$work/orders/prompts.jsonl" >"$work/answers.jsonl"
    python3 "$here/../examples/orders.py" --score "$work/orders/test.jsonl" "$work/answers.jsonl"
}

BUILD=$build "$here/demo.sh" fetch
mkdir -p "$work"

step "The data: orders in plain words, and the JSON they should become"
run python3 "$here/../examples/orders.py" "$work/orders"
head -n 2 "$work/orders/train.jsonl"

step "Before"
mica chat smollm2-135m "$order" -n 60
mica eval smollm2-135m --data "$work/orders" --mask-prompt
exact

step "Training"
rm -rf "$work/adapter"
mica train smollm2-135m --data "$work/orders" --adapter "$work/adapter" --mask-prompt --epochs 1 --lr 1e-3 --schedule cosine --warmup 5 \
    --val-every 10 --report "$work/report.html"

step "After"
mica chat smollm2-135m --adapter "$work/adapter" "$order" -n 120
mica eval smollm2-135m --adapter "$work/adapter" --data "$work/orders" --mask-prompt
exact --adapter "$work/adapter"

cat <<END

The curves and some answers before and after are in $work/report.html.
Try next:
  $build/mica chat smollm2-135m --adapter $work/adapter "Three small teas to go for Hugo at 7:45."
  $build/mica fuse smollm2-135m $work/fused --adapter $work/adapter          (a model of its own)
END
