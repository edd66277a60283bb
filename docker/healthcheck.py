#!/opt/metasrv/bin/python -IS
"""Exits with 0 if the node of this container is ready (/readyz), else with 1 and the failing checks on standard output.

Runs every few seconds in the container, so it needs the standard library only. `METASRV_HEALTH_URL` replaces the address
when a configuration file, not METASRV_HEALTH_API_ADDRESS or METASRV_ADMIN_API_ADDRESS, says where to ask.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 4.0


def ready_url() -> str:
    """`/readyz` of this container: at the listener that has only probes, if there is one, else at the admin API."""
    given = os.environ.get("METASRV_HEALTH_URL")
    if given:
        return given
    own = os.environ.get("METASRV_HEALTH_API_ADDRESS")
    scheme = "https" if os.environ.get("METASRV_ADMIN_TLS_SERVER_CERT") and not own else "http"
    host, _, port = (own or os.environ.get("METASRV_ADMIN_API_ADDRESS", "0.0.0.0:28101")).rpartition(":")
    wildcard = host == "0.0.0.0"  # noqa: S104 - compared with, not listened on
    return f"{scheme}://{'127.0.0.1' if wildcard else host}:{port}/readyz"


def main() -> int:
    url = ready_url()
    # The certificate names the host that clients use, not this loopback address.
    context = ssl._create_unverified_context()  # noqa: S323
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS) as response:
            response.read()
        return 0
    except urllib.error.HTTPError as error:
        sys.stdout.write(error.read().decode(errors="replace"))
    except (OSError, ValueError) as error:
        sys.stdout.write(f"{url} does not answer: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
