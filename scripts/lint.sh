#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Static analysis with what is installed; says so when a tool is missing. For a look, not part of the tests.
set -eu
build=${BUILD:-build}
if command -v cppcheck >/dev/null 2>&1; then
    cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --suppress=missingIncludeSystem \
        -I include -I src -I "$build/generated" src
else
    echo "lint: cppcheck is not installed" >&2
fi
if command -v clang-tidy >/dev/null 2>&1; then
    git ls-files 'src/*.c' | xargs clang-tidy --quiet -p "$build" 2>/dev/null
else
    echo "lint: clang-tidy is not installed" >&2
fi
