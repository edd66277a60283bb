"""The programs: `metasrv`, `metactl` and the local cluster.

Refuses Windows before anything is imported that exists on Unix only.
"""

import sys

if sys.platform == "win32":
    raise SystemExit(
        "metasrv does not run on Windows: it needs POSIX file locks and syncs. Run it in WSL 2 (Windows Subsystem for"
        " Linux), or in Docker with `docker compose up`."
    )
