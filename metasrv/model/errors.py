"""The one exception tree of metasrv.

Knows nothing of the rest of the package. Every error that an operator or a client may read is a class
here, and its text is one plain sentence. Services map classes to status codes.

Three kinds of failed requests are kept apart, because what a caller may do next differs
(invariant 4): `NotDoneError` (certainly not executed, safe to retry), `UnknownOutcomeError` (may have
been executed, never retried silently) and `InvalidRequestError` (will never succeed).
"""

from __future__ import annotations


class MetasrvError(Exception):
    """Base of every error raised on purpose by metasrv."""


# ----------------------------------------------------------------------------- ends of the process


class FatalError(MetasrvError):
    """The process cannot start, or cannot go on, however long it has run; it ends with `exit_code`."""

    exit_code = 1


class ConfigError(FatalError):
    """The configuration is wrong. `problems` holds one sentence per mistake, all found at once."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class JoinError(FatalError):
    """No address of `join` let this node in before the deadline."""

    exit_code = 3


class LeaveError(FatalError):
    """A one-shot leave request was refused or no address answered."""

    exit_code = 4


class IdentityError(FatalError):
    """The data directory belongs to another node, another cluster, or another running process."""

    exit_code = 5


class DataDamagedError(FatalError):
    """A file of the data directory is not what this node wrote (invariant 9).

    The text names the file, the place in it, and what to do.
    """

    exit_code = 6

    def __init__(self, path: str, where: str, what: str, advice: str) -> None:
        super().__init__(f"{path}: {where}: {what}; {advice}")
        self.path = path


class BindError(FatalError):
    """A listener could not be opened: the address is in use, not of this machine, or not permitted."""

    exit_code = 7


class StorageError(FatalError):
    """The disk refused a write or a sync (full, read-only, input/output error); the node stops."""

    exit_code = 8


class InvariantError(FatalError):
    """A condition that cannot happen did; the node stops rather than go on with a wrong state."""

    exit_code = 9


class RemovedError(FatalError):
    """The data directory is that of a node that is no longer a member: removed, or its id was given to another."""

    exit_code = 10


class BackupError(FatalError):
    """A backup cannot be read or restored; the text names the line, or what contradicts it. Nothing was changed."""


class RecoveryRefusedError(FatalError):
    """A new cluster must not be made of this directory, or nobody has said so; nothing was changed."""


# ----------------------------------------------------------------------------- requests


class RequestError(MetasrvError):
    """Base of everything that may end one request."""


class InvalidRequestError(RequestError):
    """The request is malformed and will never succeed."""


class TooLargeError(InvalidRequestError):
    """A size or count is past its limit; the text names the limit (invariant 10)."""

    def __init__(self, what: str, actual: int, limit: int) -> None:
        super().__init__(f"{what} is {actual}, the limit is {limit}")
        self.what = what
        self.actual = actual
        self.limit = limit


class NotDoneError(RequestError):
    """The request was certainly not executed; it is safe to send it again."""


NOT_LEADER_TEXT = "not leader"
"""The text of the status that a client gets from a node that does not lead."""


class NotLeaderError(NotDoneError):
    """This node is not the leader. `leader_id` is the leader it knows, if any."""

    def __init__(self, leader_id: int | None, text: str = NOT_LEADER_TEXT) -> None:
        super().__init__(text)
        self.leader_id = leader_id


class NoLeaderError(NotDoneError):
    """No leader became known in time."""

    def __init__(self, text: str = "need to forward but no known leader") -> None:
        super().__init__(text)


class OverloadedError(NotDoneError):
    """A bounded queue is full; the request was refused before it was taken."""


class ViewLostError(NotDoneError):
    """A large read took too long: the instant of the state that it read was given up (`state/views.py`)."""


class WriteRefusedError(NotDoneError):
    """The cluster takes no such write now: it is read-only, or its quota is used up. Sending it again soon is no use."""


class StoppingError(NotDoneError):
    """The node is shutting down and takes nothing new."""

    def __init__(self, text: str = "MetaNodeStopped: this node is shutting down") -> None:
        super().__init__(text)


class DamagedCopyError(NotDoneError):
    """This node's copy of the state is known to be wrong: it answers nothing from it."""

    def __init__(self, text: str = "this node's copy of the state is damaged; ask another node") -> None:
        super().__init__(text)


class UnknownOutcomeError(RequestError):
    """The request may or may not have been executed; only the caller can decide what to do."""


# ----------------------------------------------------------------------------- membership


class MembershipError(NotDoneError):
    """A membership change was refused; nothing was changed."""


class ChangeInProgressError(MembershipError):
    """Another membership change is not yet committed; try again."""

    def __init__(self, text: str = "the cluster is already undergoing a configuration change") -> None:
        super().__init__(text)


class JoinEndedError(MembershipError):
    """The node was removed, or its id given to another directory, while it joined: it must not ask again by itself."""


class LeaveSelfError(MembershipError):
    """The leader cannot remove itself (docs/contract/admin-api.md section 5)."""

    def __init__(self, node_id: int) -> None:
        super().__init__(f"fail to leave: can not leave id={node_id} via itself, source: leave-via-self")
        self.node_id = node_id


# ----------------------------------------------------------------------------- peers


class PeerError(MetasrvError):
    """Base of faults on a peer connection."""


class FrameError(PeerError):
    """Bytes from a peer are not a frame of the peer protocol; the connection is closed."""


class AuthenticationError(PeerError):
    """A peer did not prove the shared secret, or its certificate is not that of a node."""


class PeerUnreachableError(PeerError, NotDoneError):
    """The peer could not be reached; nothing was sent to it."""


class CodecError(MetasrvError):
    """Bytes do not follow the schema they claim."""
