#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every external symbol defined in the static library starts with mica_, and so does all that the shared one exports.
#   symbols.sh LIBMICA_A LIBMICA_SO
set -eu
foreign() { awk 'NF == 3 && $3 !~ /^mica_/ { print $3 } NF == 3 { n++ } END { if (!n) print "(no symbols at all)" }'; }
static=$(nm -g --defined-only "$1" | foreign)
shared=$(nm -D --defined-only "$2" | foreign)
[ -z "$static" ] || { echo "in the static library:" $static; }
[ -z "$shared" ] || { echo "exported by the shared library:" $shared; }
[ -z "$static$shared" ] && echo "every symbol starts with mica_"
