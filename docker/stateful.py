#!/opt/metasrv/bin/python -IS
"""Starts the node of one pod of a StatefulSet: the pod's name gives its id, its address and its peers.

The first pod begins the cluster, but only when every other pod answers and none of them knows a cluster. So a pod that
lost its volume joins the others again, and waits until it can ask them. Standard library only; configured by
METASRV_PEER_SERVICE, the headless service, and METASRV_REPLICAS, the number of pods at the first start.
"""

import json
import os
import socket
import sys
import time
import urllib.request

PROGRAM = "metasrv"
ADMIN_PORT = 28101
RAFT_PORT = 28103
ANSWER_SECONDS = 3.0
PAUSE_SECONDS = 1.0

NONE, A_CLUSTER, SILENT = "no cluster", "a cluster", "no answer"


def ask(host: str) -> str:
    """What the pod `host` knows of a cluster."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{host}:{ADMIN_PORT}/v1/cluster/status", timeout=ANSWER_SECONDS) as response:
            status = json.load(response)
    except (OSError, ValueError):
        return SILENT
    return A_CLUSTER if status["voters"] else NONE


def settings_of(pod: str, service: str, replicas: int) -> tuple[dict[str, str], list[str]]:
    """The variables of the pod, and the hosts of the others."""
    name, _, ordinal = pod.rpartition("-")
    if not name or not ordinal.isdigit():
        raise ValueError(f"{pod!r} is not the name of a pod of a StatefulSet")
    own = int(ordinal)
    hosts = [f"{name}-{number}.{service}" for number in range(max(replicas, own + 1))]
    others = [host for number, host in enumerate(hosts) if number != own]
    variables = {
        "METASRV_ID": str(own + 1),
        "METASRV_RAFT_ADVERTISE_HOST": hosts[own],
        "METASRV_GRPC_API_ADVERTISE_HOST": hosts[own],
        "METASRV_JOIN": ",".join(f"{host}:{RAFT_PORT}" for host in others),
    }
    return variables, others


def must_begin(others: list[str], has_data: bool) -> bool:
    """Whether the first pod begins a cluster; waits for the others' answers unless it has data of its own."""
    said = ""
    while True:
        answers = {host: ask(host) for host in others}
        if A_CLUSTER in answers.values():
            return False
        if SILENT not in answers.values():
            return True
        if has_data:
            return False
        text = ", ".join(f"{host}: {answer}" for host, answer in answers.items())
        if text != said:
            sys.stderr.write(f"metasrv-stateful: waiting to learn whether there is a cluster: {text}\n")
            said = text
        time.sleep(PAUSE_SECONDS)


def main() -> int:
    pod = os.environ.get("METASRV_POD", socket.gethostname())
    try:
        service, replicas = os.environ["METASRV_PEER_SERVICE"], int(os.environ["METASRV_REPLICAS"])
        variables, others = settings_of(pod, service, replicas)
    except (KeyError, ValueError) as error:
        sys.stderr.write(
            f"metasrv-stateful: METASRV_PEER_SERVICE, METASRV_REPLICAS or the pod's name is wrong: {error}\n"
        )
        return 2
    directory = os.environ.get("METASRV_RAFT_DIR", "/var/lib/metasrv")
    has_data = any(name != "lost+found" for name in os.listdir(directory)) if os.path.isdir(directory) else False
    if variables["METASRV_ID"] == "1" and must_begin(others, has_data):
        variables.update(METASRV_SINGLE="true", METASRV_JOIN="")
    os.environ.update(variables)
    os.execvp(PROGRAM, [PROGRAM, *sys.argv[1:]])  # noqa: S606 - becomes the node
    return 1


if __name__ == "__main__":
    sys.exit(main())
