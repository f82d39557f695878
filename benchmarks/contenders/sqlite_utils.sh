#!/usr/bin/env bash
# Pages by curl, a record a line by jq, upserted by sqlite-utils.
set -euo pipefail
bin=$1 database=$2 url=$3
total=$(curl -sSfI "$url" | tr -d '\r' | awk 'tolower($1) == "x-total-count:" {print $2}')
curl -sSf "$url&page=[1-$(((total + 999) / 1000))]" | jq -c '.[]' | "$bin/sqlite-utils" upsert "$database" users - --nl --pk id
