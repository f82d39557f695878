#!/usr/bin/env bash
# A tap into a target, as `meltano run` pipes them.
set -euo pipefail
here=$(dirname "$0") bin=$1 database=$2 url=$3
echo '{}' >"$database.config.json"
"$bin/python" "$here/singer_tap.py" "$url" --config "$database.config.json" |
    "$bin/python" "$here/singer_target.py" "$database" --config "$database.config.json" >"$database.state.jsonl"
