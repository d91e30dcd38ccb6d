#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The parsing and reporting of bench/peers.py, on canned output. Wants python3 and nothing else.
command -v python3 >/dev/null || { echo "skipped: peers: no python3"; exit 77; }
exec python3 -B "$1/tests/structure/peers.py" "$1"
