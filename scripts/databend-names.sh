#!/usr/bin/env bash
# Puts programs named databend-metactl and databend-meta into a directory: scripts that are written for Databend's build
# folder (target/debug, for example) then run metactl and metasrv.
#
#   scripts/databend-names.sh DIR
#
# They run the interpreter of this environment (PYTHON, else .venv beside this script, else python3), whatever directory
# they are called from. A file of another origin is not replaced.
set -euo pipefail

if [ $# -ne 1 ] || [ -z "$1" ] || [[ $1 == -* ]]; then
    echo "usage: scripts/databend-names.sh DIR" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-}
if [ -z "$python" ]; then
    if [ -x "$root/.venv/bin/python" ]; then python=$root/.venv/bin/python; else python=python3; fi
fi
if ! python=$(command -v -- "$python"); then
    echo "databend-names: there is no Python at ${PYTHON:-python3}; set PYTHON" >&2
    exit 1
fi
case $python in /*) ;; *) python=$PWD/$python ;; esac
if ! PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$python" -c 'import metasrv.cli.ctl' 2>/dev/null; then
    echo "databend-names: $python has not what metasrv needs; run \`make test-unit\` once, or set PYTHON" >&2
    exit 1
fi

# The programs are scripts of this interpreter, so that the kernel names the processes as scripts expect (killall).
if [[ $python =~ [[:space:]] ]] || [ ${#python} -gt 120 ]; then
    echo "databend-names: $python cannot stand in the first line of a script; set PYTHON to a shorter path without spaces" >&2
    exit 1
fi
mark="written by metasrv's scripts/databend-names.sh"
mkdir -p -- "$1"

# Write the program $2, which runs the module $3, into the directory $1.
put() {
    local program=$1/$2
    if [ -e "$program" ] && ! grep -qF -- "$mark" "$program"; then
        echo "databend-names: $program is there already, and was not $mark" >&2
        exit 1
    fi
    "$python" - "$program.part" "$python" "$mark" "$root" "$3" <<'END'
import sys

path, python, mark, root, module = sys.argv[1:]
with open(path, "w", encoding="utf-8") as program:
    program.write(f"#!{python}\n# {mark}\nimport sys\n\nsys.path[0] = {root!r}\n")
    program.write(f"from {module} import main\n\nsys.exit(main())\n")
END
    chmod 755 -- "$program.part"
    mv -f -- "$program.part" "$program"
    echo "$program"
}

put "$1" databend-meta metasrv.cli.server
put "$1" databend-metactl metasrv.cli.ctl
