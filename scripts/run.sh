#!/bin/sh
# Usage: sh scripts/run.sh SCRIPT [ARGUMENT...]
#
# Runs a script of this folder (they need nothing but the standard library) under the environment's
# own Python once that is complete, else under PYTHON, which defaults to the first new enough one.
set -u

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

venv=${VENV:-.venv}
if [ -f "$venv/stamp.json" ] && new_enough "$venv/bin/python"; then
    exec "$venv/bin/python" "$@"
fi

if [ -n "${PYTHON:-}" ]; then
    if new_enough "$PYTHON"; then exec "$PYTHON" "$@"; fi
    tried=$PYTHON
else
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if new_enough "$python"; then exec "$python" "$@"; fi
    done
    tried=python3
fi
found=$("$tried" --version 2>&1) || found="not found"
echo "error: Python 3.11 or newer is needed and $tried is ${found#Python }; name one with PYTHON=/path/to/python3.11" >&2
exit 2
