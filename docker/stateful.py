#!/opt/metasrv/bin/python -IS
"""Starts the node of one pod of a StatefulSet: the pod's name gives its id, its address and its peers.

The first pod may begin the cluster. The node asks the others before it does, so a pod that lost its volume joins them
again, and waits until it can ask them. Standard library only; configured by
METASRV_PEER_SERVICE, the headless service, and METASRV_REPLICAS, the number of pods at the first start.
"""

import os
import socket
import sys

PROGRAM = "metasrv"
RAFT_PORT = 28103


def settings_of(pod: str, service: str, replicas: int) -> dict[str, str]:
    """The variables of the pod."""
    name, _, ordinal = pod.rpartition("-")
    if not name or not ordinal.isdigit():
        raise ValueError(f"{pod!r} is not the name of a pod of a StatefulSet")
    own = int(ordinal)
    hosts = [f"{name}-{number}.{service}" for number in range(max(replicas, own + 1))]
    others = [host for number, host in enumerate(hosts) if number != own]
    return {
        "METASRV_ID": str(own + 1),
        "METASRV_RAFT_ADVERTISE_HOST": hosts[own],
        "METASRV_GRPC_API_ADVERTISE_HOST": hosts[own],
        "METASRV_JOIN": ",".join(f"{host}:{RAFT_PORT}" for host in others),
        "METASRV_SINGLE": "true" if own == 0 else "false",
    }


def main() -> int:
    pod = os.environ.get("METASRV_POD", socket.gethostname())
    try:
        service, replicas = os.environ["METASRV_PEER_SERVICE"], int(os.environ["METASRV_REPLICAS"])
        variables = settings_of(pod, service, replicas)
    except (KeyError, ValueError) as error:
        sys.stderr.write(
            f"metasrv-stateful: METASRV_PEER_SERVICE, METASRV_REPLICAS or the pod's name is wrong: {error}\n"
        )
        return 2
    os.environ.update(variables)
    os.execvp(PROGRAM, [PROGRAM, *sys.argv[1:]])  # noqa: S606 - becomes the node
    return 1


if __name__ == "__main__":
    sys.exit(main())
