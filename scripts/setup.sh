#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that mica needs and this machine lacks, after saying which and why.
#   scripts/setup.sh [build] [test] [full] [demo] [report] [neon]        (default: build)
# What is there already is found by asking for the thing itself (a command, a pkg-config module), not for
# a package, so a compiler or library installed another way is fine. Needs root or sudo only if something is missing.
set -eu

#  profile|probe|Debian package|why
needs='
build|cmd:cmake|cmake|configures the build
build|cmd:gcc|gcc|compiles C17
build|cc:stdio.h|libc6-dev|headers of the C library
build|cmd:pkg-config|pkg-config|finds the libraries below
build|pc:yajl|libyajl-dev|reads JSON
build|pc:libpcre2-8|libpcre2-dev|pre-tokenizer patterns
build|pc:libutf8proc|libutf8proc-dev|Unicode normalisation
build|pc:libedit|libedit-dev|line editing in mica chat
build|pc:yaml-0.1|libyaml-dev|reads YAML files of training options
test|pc:cmocka|libcmocka-dev|runs the unit tests
test|cmd:g++|g++|checks that the headers compile as C++
full|cmd:clang|clang|second compiler and fuzzing
full|clang_rt:fuzzer|libclang-rt-dev|sanitizers and libFuzzer of clang
full|cmd:gnuplot|gnuplot-nox|draws the report of a training run
report|cmd:gnuplot|gnuplot-nox|draws the report of a training run
demo|pip:|python3-pip|fetches the demo model
neon|cmd:aarch64-linux-gnu-gcc|gcc-aarch64-linux-gnu|compiles for 64-bit ARM
neon|cmd:qemu-aarch64|qemu-user|runs programs for 64-bit ARM
neon|arm64:libyajl.so|libyajl-dev:arm64|reads JSON, on ARM
neon|arm64:libpcre2-8.so|libpcre2-dev:arm64|pre-tokenizer patterns, on ARM
neon|arm64:libutf8proc.so|libutf8proc-dev:arm64|Unicode normalisation, on ARM
neon|arm64:libcmocka.so|libcmocka-dev:arm64|runs the unit tests, on ARM
'

has() { # has PROBE
    case $1 in
    cmd:*) command -v "${1#*:}" >/dev/null 2>&1 ;;
    pc:*) pkg-config --exists "${1#*:}" 2>/dev/null ;;
    cc:*) printf '#include <%s>\n' "${1#*:}" | gcc -fsyntax-only -x c - 2>/dev/null ;;
    arm64:*) [ -e "/usr/lib/aarch64-linux-gnu/${1#*:}" ] ;;
    pip:*) python3 -m pip --version >/dev/null 2>&1 ;;
    clang_rt:*) ls "$(clang -print-resource-dir 2>/dev/null)"/lib/linux/libclang_rt."${1#*:}"-*.a >/dev/null 2>&1 ;;
    esac
}

profiles=" ${*:-build} "
missing=
report=
old_ifs=$IFS
IFS='
'
for line in $needs; do
    IFS='|' read -r profile probe package why <<LINE
$line
LINE
    case $profiles in *" $profile "*) ;; *) continue ;; esac
    has "$probe" && continue
    missing="$missing $package"
    report="$report
  $package: $why"
done
IFS=$old_ifs
[ -n "$missing" ] || exit 0

echo "setup: missing here, from Debian:$report" >&2
if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: this is not a Debian system: please install what corresponds to$missing" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "setup: neither root nor sudo: please run as root: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
echo "setup: running ${as_root:+sudo }apt-get install --no-install-recommends$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    # shellcheck disable=SC2086 — $missing is a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >"$log" 2>&1 </dev/null
}
# Packages of another architecture can be installed beside this machine's once dpkg has been told of it.
case $missing in
*:arm64*)
    if [ "$(dpkg --print-architecture)" != arm64 ] && ! dpkg --print-foreign-architectures | grep -qx arm64; then
        echo "setup: running ${as_root:+sudo }dpkg --add-architecture arm64" >&2
        $as_root dpkg --add-architecture arm64
    fi
    ;;
esac
# A new machine has no package lists, an old one has stale ones: both are mended by one update.
if ! install; then
    echo "setup: updating the package lists first" >&2
    $as_root apt-get update >"$log" 2>&1 </dev/null || { cat "$log" >&2; echo "setup: apt-get update failed (no network?)" >&2; exit 1; }
    install || { cat "$log" >&2; echo "setup: apt-get install failed" >&2; exit 1; }
fi
echo "setup: done" >&2
