#!/usr/bin/env bash
# Looks for known vulnerabilities in requirements/runtime.txt with pip-audit, which has an environment of its own. Fails when
# there is one, and says that it was skipped where pip-audit or its data cannot be reached. PYTHON is an interpreter with pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment=.audit
report=$(mktemp)
trap 'rm -f "$report"' EXIT

skip() {
    echo "audit: skipped, nothing was looked for: $*."
    exit 0
}

if [ ! -x "$environment/bin/pip-audit" ]; then
    "${PYTHON:-python3}" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --require-hashes --requirement requirements/audit.txt ||
        skip "pip-audit cannot be installed, for the reason above"
fi
status=0
"$environment/bin/pip-audit" --requirement requirements/runtime.txt --disable-pip --require-hashes --progress-spinner off \
    --format json --timeout 15 >"$report" 2>"$report.errors" || status=$?
reason=$(tail -n 1 "$report.errors")
rm -f "$report.errors"
# With its findings it writes a report, and ends with 1; without data it ends with 1 and writes none.
"$environment/bin/python" - "$report" <<'PYTHON' || { [ $? -eq 3 ] && skip "pip-audit ended with $status: $reason"; exit 1; }
import json
import sys

try:
    packages = json.load(open(sys.argv[1], encoding="utf-8"))["dependencies"]
except (ValueError, KeyError):
    sys.exit(3)
skipped = [package for package in packages if "skip_reason" in package]
if len(skipped) == len(packages):  # an index without that data answers that it does not know any of them
    reason = f"the index knows none of {len(packages)} packages ({skipped[0]['skip_reason']})" if skipped else "none was named"
    print(f"audit: skipped, nothing was looked for: {reason}.")
    sys.exit(0)
found = [
    f"audit: {package['name']} {package['version']} has {weakness['id']}; mended in {', '.join(weakness['fix_versions']) or 'no version'}"
    for package in packages
    for weakness in package.get("vulns", [])
]
print(*found, sep="\n", end="\n" if found else "")
if skipped:
    print(f"audit: not looked for: {', '.join(package['name'] for package in skipped)}")
print(f"audit: {len(packages)} packages, {len(found)} known vulnerabilities")
sys.exit(bool(found))
PYTHON
