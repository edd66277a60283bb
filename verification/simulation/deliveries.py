"""What the peer transport promises: a node is given what another sent to it, in that order, and nothing else.

Messages may be lost with their connection. None comes twice, late, changed or from somebody else, whatever the network
does to the bytes; and the generations of a peer's connections never go back.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable


class Deliveries:
    """`violated` is called with each sentence about a broken promise."""

    def __init__(self, violated: Callable[[str], None]) -> None:
        self._violated = violated
        self._under_way: defaultdict[tuple[int, int], deque[bytes]] = defaultdict(deque)
        """Messages by sender and receiver that were sent and have not arrived; those before an arrival were lost."""
        self._generations: dict[tuple[int, int, int], int] = {}

    def sent(self, from_id: int, to_id: int, payload: bytes) -> None:
        self._under_way[from_id, to_id].append(payload)

    def received(self, node_id: int, life: int, from_id: int, generation: int, payload: bytes) -> None:
        """`life` is the number of the node's process: each process counts generations anew."""
        before = self._generations.get((node_id, life, from_id), 0)
        self._generations[node_id, life, from_id] = generation
        if generation < before:
            self._violated(
                f"node {node_id} is given a message of node {from_id} from connection {generation}, after {before}"
            )
        under_way = self._under_way[from_id, node_id]
        while under_way:
            if under_way.popleft() == payload:
                return
        self._violated(
            f"node {node_id} is given a message of {len(payload)} bytes that node {from_id} did not send to it then:"
            " another's, a second time, late or changed"
        )
