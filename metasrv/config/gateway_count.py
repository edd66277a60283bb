"""How many gateways a node is to have, as its configuration says it: a number as text, or `auto`. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, StringConstraints

AUTO = "auto"


def _text_of(value: object) -> object:
    """A number of a file as the text that a flag would be."""
    return str(value) if type(value) is int else value


GatewayCount = Annotated[str, BeforeValidator(_text_of), StringConstraints(pattern=r"^(auto|[0-9]|1[0-6])$")]
