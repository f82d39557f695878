#!/usr/bin/env bash
# Pages by curl, a record a line by jq, upserted by sling.
set -euo pipefail
bin=$1 database=$2 url=$3
total=$(curl -sSfI "$url" | tr -d '\r' | awk 'tolower($1) == "x-total-count:" {print $2}')
curl -sSf "$url&page=[1-$(((total + 999) / 1000))]" | jq -c '.[]' >"$database.jsonl"
sling=("${bin%/bin}"/lib/python3*/site-packages/sling_*/bin/sling-*)
BENCH="sqlite://$database" "${sling[0]}" run --src-stream "file://$database.jsonl" \
    --src-options '{"format": "jsonlines", "flatten": true}' --columns '{"id": "bigint", "*": "string"}' --tgt-conn BENCH --tgt-object main.users \
    --mode incremental --primary-key id --update-key updated_at
