"""What a certificate allows on the raft port: to be a node, or to ask for a leave.

TLS proves that a certificate is of the configured authority, which may sign for many others. A node is who has a
certificate for the host that it advertises, good for servers and for clients. Whoever is no node, as the command that
removes one, proves a shared secret or has the certificate of an operator. Knows nothing of connections. Pure; runs
anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from metasrv.model.errors import AuthenticationError
from metasrv.process.certificates import Certificate


def check_node(certificate: Certificate, host: str, allowed_names: Sequence[str]) -> None:
    """Raise AuthenticationError unless the certificate is that of a node at `host`, or has one of the allowed names."""
    if not (certificate.for_servers and certificate.for_clients):
        raise AuthenticationError(
            f"the certificate for {certificate.title} is not one of a node: its extended key usage has to allow both "
            "server and client authentication"
        )
    named = any(certificate.has_name(name) for name in allowed_names) if allowed_names else certificate.names(host)
    if not named:
        wanted = f"one of raft_tls_allowed_names ({', '.join(allowed_names)})" if allowed_names else f"host {host}"
        raise AuthenticationError(f"the certificate is for {certificate.title}, and not for {wanted}")


def check_operator(certificate: Certificate, operators: Sequence[str]) -> None:
    """Raise AuthenticationError unless the common name of the certificate is that of an operator."""
    if certificate.common_name not in operators or not certificate.for_clients:
        raise AuthenticationError(
            f"the caller is no node, proved no shared secret (raft_secret), and the common name of its certificate, "
            f"{certificate.common_name!r}, is not among raft_tls_operators"
        )
