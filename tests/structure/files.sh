#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every file of ours says its licence in the first line and stays under 800 lines, an example under 80; no unfinished business is left in it.
#   files.sh SOURCE_DIR
set -eu
cd "$1"
find src include tests examples bench scripts .ci cmake -type f \
    \( -name '*.[ch]' -o -name '*.sh' -o -name '*.cmake' -o -name '*.def' -o -name '*.py' -o -path .ci/run \) ! -path '*/golden/*' | sort |
    xargs awk '
FNR == 1 { if (n[last] > 800 && last ~ /\.[ch]$/) { print last ": " n[last] " lines"; bad = 1 }; licensed = 0; last = FILENAME }
{ n[FILENAME] = FNR }
FNR <= 2 && /SPDX-License-Identifier: Apache-2\.0/ { licensed = 1 }
FNR == 2 && !licensed && FILENAME !~ /\.cmake$/ { print FILENAME ": no SPDX line"; bad = 1 }
FILENAME ~ /^examples\/.*\.c$/ && FNR == 80 { print FILENAME ": 80 lines or more"; bad = 1 }
/(TODO|FIXME|HACK)([^A-Za-z_]|$)/ && FILENAME !~ /structure\/files\.sh$/ { print FILENAME ":" FNR ": " $0; bad = 1 }
END {
    if (n[last] > 800 && last ~ /\.[ch]$/) { print last ": " n[last] " lines"; bad = 1 }
    exit bad
}' && echo "licences, lengths and leftovers are fine"
