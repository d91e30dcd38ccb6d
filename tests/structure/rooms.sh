#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Enforces the room table of docs/ARCHITECTURE.md: reads every #include "…" under src/. A room may include its own
# headers and those of the rooms listed for it; a public header belongs to the room named below, and the same rule
# holds for it. The command includes public headers only.
#   rooms.sh SOURCE_DIR
set -eu
cd "$1"

# A room that is not in the table, or a public header without a room, is an error too. headers.txt lists the latter.
find src include -name '*.[ch]' | sort | xargs awk '
function allow(room, list,   n, i, names) {
    known[room] = 1
    n = split(list, names, " ")
    for (i = 1; i <= n; i++) allowed[room, names[i]] = 1
    allowed[room, room] = 1
}
function owns(room, list,   n, i, names) {
    n = split(list, names, " ")
    for (i = 1; i <= n; i++) owner[names[i]] = room
}
function complain(what) { printf "%s:%d: %s\n", FILENAME, FNR, what; bad = 1 }
BEGIN {
    allow("base", "")
    allow("device", "base")
    allow("engine", "base device")
    allow("io", "base")
    allow("text", "base")
    allow("model", "base io engine")
    allow("infer", "base engine model text")
    allow("backend", "base infer model text io")
    allow("train", "base io engine model text")
    allow("serve", "base text backend")
    allow("cli", "")
    owns("base", "error dtype quant version")
    owns("engine", "array ops fast random transforms")
    owns("device", "machine")
    owns("io", "convert safetensors io")
    owns("text", "tokenizer template")
    owns("train", "optimizer train")
    owns("infer", "attention model adapter chat classify batch session backend discover")
}
FNR == 1 {
    split(FILENAME, path, "/")
    if (path[1] == "src") room = path[2]
    else {
        header = path[3]
        sub(/\.h$/, "", header)
        if (!(header in owner)) complain("public header of no room: add it to " "tests/structure/rooms.sh")
        room = owner[header]
    }
    if (!(room in known)) complain("unknown room " room)
    files++
}
/^[ \t]*#[ \t]*include[ \t]*"/ {
    split($0, quoted, "\"")
    n = split(quoted[2], part, "/")
    if (n < 2) { complain("include by room, not \"" quoted[2] "\""); next }
    target = part[1]
    if (target == "mica") {
        name = part[2]
        sub(/\.h$/, "", name)
        if (room == "cli") next
        if (!(name in owner)) { complain("public header of no room: " quoted[2]); next }
        target = owner[name]
    }
    if (!((room, target) in allowed)) complain(room " may not include " quoted[2])
    edges++
}
END {
    if (!files || !edges) { print "no sources found"; bad = 1 }
    if (!bad) printf "%d files, %d includes, all within the table\n", files, edges
    exit bad
}'
