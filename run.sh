#!/usr/bin/env bash
# Sets up .venv where it is missing or stale, then runs one command. `./run.sh help` lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

die() {
    echo "run.sh: $*" >&2
    exit 2
}

usage() {
    cat <<'USAGE'
./run.sh                       load the last closed day, show status
./run.sh load DATE             load one day, as 2026-11-21
                               (--module NAME: the datasets of another module; every command below takes it)
./run.sh backfill START STOP   load every missing day from START to the day before STOP (--workers N)
./run.sh plan START STOP       what a backfill would do, why, and at what cost; runs nothing
./run.sh status                how each day stands, and what came with it (--json, --max-age '36 hours': exits with 1)
./run.sh report [FILE]         the same as one page with charts (data/report.html)
./run.sh reprocess START STOP  make outdated days again from raw, without the API (--all: every day)
./run.sh verify [START STOP]   name what differs in files and warehouse; changes nothing
./run.sh rebuild               make the warehouse anew of all raw days, swapped in at once
./run.sh prune --older-than N  give up files of days N or more days old (--yes: do it; --keep N: not the newest)
./run.sh forget KEY...         erase users from every file and table, for good (asks first; --yes: do not ask)
./run.sh doctor URL            what a URL is as a source, and the section of luigi.cfg that reads it
./run.sh check                 whether the source keeps what its section says; writes nothing
./run.sh alert                 send a trial message to the webhook that is told of failures
./run.sh luigid                the scheduler and its visualiser, on http://127.0.0.1:8082
./run.sh bench [FLAG...]       measure it beside dlt, Singer, pandas, … (--help; --write keeps docs/benchmarks.md)
./run.sh test [ARGUMENT...]    lint, types and tests; arguments go to pytest
./run.sh TASK [FLAG...]        anything else goes to: luigi --module pipeline TASK FLAG...
./run.sh COMMAND --help        the arguments of a command; ./run.sh --version: the version
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

# Print the commands that usage names.
list_commands() {
    usage | sed -n 's/^\.\/run\.sh \([a-z][a-z]*\) .*/\1/p'
}

# Print "did you mean X?" for the nearest of the further arguments, or nothing.
suggest() {
    python -I -S -c 'import difflib, sys
near = difflib.get_close_matches(sys.argv[1].lower(), sys.argv[2:], n=1)
print(f"did you mean ./run.sh {near[0]}? " if near else "")' "$@"
}

# Luigi only warns of a configuration that is not there, and goes on without it.
[ -z "${LUIGI_CONFIG_PATH:-}" ] || [ -f "$LUIGI_CONFIG_PATH" ] ||
    die "LUIGI_CONFIG_PATH names $LUIGI_CONFIG_PATH, which is $([ -e "$LUIGI_CONFIG_PATH" ] && echo no file || echo not there)"

command=${1:-}
case "$command" in
help | -h | --help)
    usage
    exit
    ;;
test | bench) set_up requirements/dev.txt ;;
*) set_up requirements.txt ;;
esac
export PATH="$PWD/.venv/bin:$PATH"

# Luigi reads its configuration when it is imported, and ends in a traceback where it cannot.
for config in luigi.cfg ${LUIGI_CONFIG_PATH:+"$LUIGI_CONFIG_PATH"}; do
    python -I -S -c 'import configparser, sys
try: configparser.RawConfigParser().read(sys.argv[1], encoding="utf-8")
except (configparser.Error, UnicodeDecodeError) as error: sys.exit(" ".join(str(error).split()))' "$config" ||
        die "$config cannot be read: a line stands before the first [section], a section or a key stands twice, or a further line of a value is not indented"
done

case "$command" in
"")
    luigi --module pipeline LoadUsers
    exec python -m wholeday status
    ;;
load | status | report | backfill | plan | doctor | check | reprocess | verify | rebuild | prune | forget | alert)
    exec python -m wholeday "$@"
    ;;
luigid)
    export LUIGI_CONFIG_PATH="${LUIGI_CONFIG_PATH:-central.cfg}"
    exec python -m wholeday.tasks.scheduler "${@:2}"
    ;;
bench) exec python -m benchmarks.run "${@:2}" ;;
test)
    shift
    ruff format --check .
    ruff check .
    mypy
    lint-imports
    # Tests that wait for servers leave a third of the cores idle: one process more than there are.
    exec pytest --numprocesses "$(python -c 'import os; print(os.cpu_count() + 1)')" --dist loadgroup "$@"
    ;;
--version) exec python -m wholeday --version ;;
-*) die "give a command or a task before the flag $command: ./run.sh help lists them" ;;
*)
    # shellcheck disable=SC2046 # a word each
    if [[ $command == [a-z]* ]]; then
        die "there is no command $command: $(suggest "$command" $(list_commands))./run.sh help lists all"
    elif list_commands | grep -qixF -- "$command"; then
        die "there is no task $command: $(suggest "$command" $(list_commands))./run.sh help lists all"
    fi
    exec luigi --module pipeline "$@"
    ;;
esac
