#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The backend mlx_lm with the real mlx-lm (MLX's CPU build from PyPI), in a virtual environment made in the build folder once: the conformance program
# against "cpu" and "mlx_lm", on models of the tests and, where $MICA_TEST_MODELS names a folder with an MLX folder of SmolLM2, on that; then
# kill -9 of the Python process at random. $MICA_TEST_MLX_PYTHON names an interpreter that has mlx-lm already.
# Skipped (77), with a reason, where there is neither.
#   mlx_lm.sh SOURCE_DIR BUILD_DIR
set -eu
source=$1 build=$2
python=${MICA_TEST_MLX_PYTHON:-$build/mlx_lm-venv/bin/python}
skip() { echo "SKIPPED: the real mlx-lm is not tested: $*"; exit 77; }

if ! "$python" -c 'import mlx.core, mlx_lm' 2>/dev/null; then
    [ -z "${MICA_TEST_MLX_PYTHON:-}" ] || skip "$python cannot import mlx_lm"
    python3 -m venv "$build/mlx_lm-venv" >/dev/null 2>&1 || skip "python3 -m venv does not work here (Debian: python3-venv)"
    "$python" -m pip --disable-pip-version-check install --quiet mlx-lm 'mlx[cpu]' ||
        skip "pip cannot install mlx-lm and mlx[cpu]: is there a network, and is pip's index set up?"
fi
"$python" -c 'import importlib.metadata as m; print("mlx-lm", m.version("mlx-lm"), "mlx", m.version("mlx"))'
export MICA_PYTHON="$python"

# The small models cannot chat: a copy of one gets a template, whose control tokens messages must not forge.
chat=$build/mlx_lm-chat
rm -rf "$chat"
cp -r "$source/tests/golden/models/qwen3-f32" "$chat"
cat >"$chat/chat_template.jinja" <<'END'
{%- for m in messages %}<s>{{ m.role }}: {{ m.content | trim }}</s>
{% endfor %}{% if add_generation_prompt %}<s>assistant:{% endif %}
END
# Those of llama and gemma3 have configs of transformers >= 5, whose "rope_parameters" mlx-lm does not read by itself.
models="$chat"
for name in qwen2-f32 llama-f32 gemma3-text-f32; do models="$models $source/tests/golden/models/$name"; done
real=${MICA_TEST_MODELS:-/nowhere}/smollm2-135m-bf16
f32=$build/mlx_lm-f32 # in f32 nothing is near enough to a tie for rounding to decide
rm -rf "$f32"
if [ -f "$real/config.json" ] && "$build/mica" convert "$real" "$f32" --dtype f32; then models="$models $real $f32"
else echo "SmolLM2 is not on this machine (\$MICA_TEST_MODELS/smollm2-135m-bf16): not tried"
fi
for model in $models; do
    echo "== $model"
    "$build/tests/conformance" "$model" cpu mlx_lm
done
rm -rf "$f32"
echo "== kill -9"
"$build/tests/kill_python" "$source/tests/golden/models/qwen3-f32" "${KILLS:-10}"
