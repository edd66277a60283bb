"""The users of the replicated state, decoded once after each change. Runs on the event loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from metasrv.grpc_api.context import LocalState
from metasrv.model.errors import CodecError
from metasrv.model.users import NAME_PREFIX, User, secret_name, user_in, user_names

logger = logging.getLogger(__name__)


class Users:
    """Every user as this node has applied it."""

    def __init__(self, machine: LocalState) -> None:
        self._machine = machine
        self._seen: Mapping[str, bytes] | None = None
        self._users: dict[str, User] = {}
        self._any = False

    @property
    def any(self) -> bool:
        """Whether there is any user beyond root, readable or not."""
        self._refresh()
        return self._any

    def get(self, name: str) -> User | None:
        """The user; None for one that does not exist, or that this release cannot read."""
        self._refresh()
        return self._users.get(name)

    def _refresh(self) -> None:
        secrets = self._machine.secrets
        if secrets is self._seen:
            return
        self._seen = secrets
        self._users = {}
        names = user_names(secrets)
        self._any = bool(names)
        for name in names:
            try:
                self._users[name] = user_in(name, secrets[secret_name(name)])
            except CodecError as error:
                logger.warning("user %s cannot log in: the secret %s%s: %s", name, NAME_PREFIX, name, error)
