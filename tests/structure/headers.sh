#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every public header compiles alone, as C17 and as C++17, without a warning.
#   headers.sh SOURCE_DIR GENERATED_DIR C_COMPILER
set -eu
source=$1 generated=$2 cc=$3
case $(basename "$cc") in
*clang*) cxx=clang++ ;;
*) cxx=g++ ;;
esac
if ! command -v "$cxx" >/dev/null 2>&1; then
    echo "skipped: C++: $cxx is not installed"
    cxx=
fi
status=0 count=0
for header in "$source"/include/mica/*.h "$generated"/mica/*.h; do
    name=mica/$(basename "$header")
    flags="-I $source/include -I $generated -Wall -Wextra -Wpedantic -Werror -fsyntax-only"
    printf '#include "%s"\nextern int mica_unit;\n' "$name" | "$cc" -std=c17 $flags -x c - || { echo "$name: not valid C17 alone"; status=1; }
    if [ -n "$cxx" ]; then
        printf '#include "%s"\nextern int mica_unit;\n' "$name" | "$cxx" -std=c++17 $flags -x c++ - || { echo "$name: not valid C++17 alone"; status=1; }
    fi
    count=$((count + 1))
done
echo "$count headers compiled alone"
exit $status
