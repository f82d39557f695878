#!/usr/bin/env bash
# Sets up .venv where it is missing or outdated, then runs one command. `./run.sh help` lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

die() {
    echo "run.sh: $*" >&2
    exit 2
}

usage() {
    cat <<'USAGE'
./run.sh                      load the last closed day, show status
./run.sh COMMAND [ARGUMENT…]  wholeday COMMAND, described by .venv/bin/wholeday --help: load, backfill, plan, reprocess,
                              rebuild, status, report, explain, verify, prune, forget, init, new, doctor, check, alert,
                              luigid
./run.sh TASK [FLAG…]         luigi --module pipeline TASK
./run.sh test [ARGUMENT…]     lint, types and tests; arguments go to pytest
./run.sh test-fast            the unit tests and the fast integration tests, without lint
./run.sh bench [FLAG…]        measure it beside dlt, Singer, pandas, … (--help; --write keeps docs/explanation/benchmarks.md)
USAGE
}

find_python() {
    local name
    for name in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
        [ -n "$name" ] && command -v "$name" >/dev/null &&
            "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 &&
            { echo "$name"; return; }
    done
    die "no Python 3.11 to 3.13 with venv was found: install one (on Debian: apt install python3-venv), or name it: PYTHON=/path/to/python ./run.sh"
}

# Install one of the two locks. Copies of them, and of the path, say what was installed where: a newer lock or a
# folder that was moved is noticed.
set_up() {
    local lock=$1 python site
    if [ ! -x .venv/bin/python ] || [ "$(cat .venv/installed.path 2>/dev/null)" != "$PWD" ]; then
        python=$(find_python)
        echo "run.sh: making .venv with $("$python" --version)" >&2
        "$python" -m venv --clear .venv
    fi
    # Luigi's own command does not search the current folder for modules; the path file makes Python search it.
    for site in .venv/lib/python3*/site-packages; do
        [ "$(cat "$site/project_folder.pth" 2>/dev/null)" = "$PWD" ] || echo "$PWD" >"$site/project_folder.pth"
    done
    cmp -s "$lock" ".venv/installed.${lock##*/}" && return
    echo "run.sh: installing $lock into .venv" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$lock"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
    # The lock for development holds all of the other.
    cp requirements.txt .venv/installed.requirements.txt
    cp "$lock" ".venv/installed.${lock##*/}"
    echo "$PWD" >.venv/installed.path
}

# Run pytest on one process more than there are cores: tests wait for servers and for the disk.
run_tests() {
    unset PYTHONDONTWRITEBYTECODE # or every command that a test starts compiles the library again
    exec pytest --numprocesses "$(python -c "import os; print(os.cpu_count() + 1)")" --dist loadgroup "$@"
}

command=${1:-}
case "$command" in
help | -h | --help)
    usage
    exit
    ;;
test | test-fast | bench) set_up requirements/dev.txt ;;
*) set_up requirements.txt ;;
esac
export PATH="$PWD/.venv/bin:$PATH"

case "$command" in
"")
    python -m wholeday.config.files || exit 2
    luigi --module pipeline LoadUsers
    exec python -m wholeday status
    ;;
bench) exec python -m benchmarks.run "${@:2}" ;;
test)
    shift
    ruff format --check .
    ruff check .
    mypy
    lint-imports
    run_tests "$@"
    ;;
test-fast)
    shift
    run_tests --ignore tests/acceptance -m "not slow and not sweep" "$@"
    ;;
*)
    # A task begins with a capital letter. `Status` is the command `status`, misspelt.
    if [[ $command == [[:upper:]]* ]] && [ ! -e "wholeday/commands/$(tr '[:upper:]' '[:lower:]' <<<"$command").py" ]; then
        python -m wholeday.config.files || exit 2
        exec luigi --module pipeline "$@"
    fi
    exec python -m wholeday "$@"
    ;;
esac
