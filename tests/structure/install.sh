#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs into a scratch folder, moves it, and builds and runs a small consumer against it four ways: pkg-config and
# find_package(mica), shared and static. The installed command and man page must be there and work.
#   install.sh SOURCE_DIR BUILD_DIR C_COMPILER
set -eu
source=$1 build=$2 cc=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cmake --install "$build" --prefix "$scratch/first" >"$scratch/log" || { cat "$scratch/log"; exit 1; }
mv "$scratch/first" "$scratch/moved" # an installed tree must not depend on where it was
prefix=$scratch/moved
libdir=$(dirname "$(find "$prefix" -name libmica.a)")

cat >"$scratch/consumer.c" <<'END'
#include <mica/dtype.h>
#include <mica/version.h>
#include <stdio.h>
int main(void) {
    printf("mica %s: %s\n", MICA_VERSION, mica_dtype_name(MICA_BF16));
    return mica_dtype_size(MICA_BF16) != 2;
}
END

run() { # run WHAT PROGRAM: the consumer must start and get an answer from the library
    out=$(LD_LIBRARY_PATH=$libdir "$2") && case $out in *bf16*) ;; *) false ;; esac || { echo "$1: failed: ${out-}"; exit 1; }
    echo "$1: $out"
}

export PKG_CONFIG_PATH="$libdir/pkgconfig"
"$cc" "$scratch/consumer.c" $(pkg-config --cflags --libs mica) -o "$scratch/shared"
run "pkg-config, shared" "$scratch/shared"
"$cc" "$scratch/consumer.c" $(pkg-config --cflags mica) "$libdir/libmica.a" \
    $(pkg-config --static --libs mica | sed "s/-lmica //") -o "$scratch/static"
run "pkg-config, static" "$scratch/static"

sed -n '/^```c$/,/^```$/p' "$source/README.md" | sed '/^```/d' >"$scratch/readme.c" # the README's example must be true
"$cc" -Wall -Wextra -Werror "$scratch/readme.c" $(pkg-config --cflags --libs mica) -o "$scratch/readme"
if LD_LIBRARY_PATH=$libdir "$scratch/readme" 2>"$scratch/log"; then echo "the README's example ran without its model"; exit 1; fi
grep -q gemma-3-1b-it-4bit "$scratch/log" && echo "the README's example compiles and names its missing model"

cat >"$scratch/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.18)
project(consumer C)
find_package(mica REQUIRED)
add_executable(consumer consumer.c)
target_link_libraries(consumer PRIVATE mica::mica)
END
for static in OFF ON; do
    cmake -S "$scratch" -B "$scratch/build-$static" -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$prefix" \
        -Dmica_USE_STATIC_LIBS=$static >"$scratch/log" 2>&1 && cmake --build "$scratch/build-$static" >>"$scratch/log" 2>&1 ||
        { cat "$scratch/log"; exit 1; }
    run "find_package, static $static" "$scratch/build-$static/consumer"
done

if [ -x "$build/mica" ]; then
    "$prefix/bin/mica" --version
    grep -q '^\.TH MICA 1' "$prefix/share/man/man1/mica.1"
    echo "command and man page are installed"
fi
