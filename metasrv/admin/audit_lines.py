"""The lines of the audit log: one JSON object each, on a logger of their own, with the id of the request.

Must not know who reads them. Runs on the event loop.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from metasrv.tracing.request_ids import current_request_id

logger = logging.getLogger("metasrv.audit")


def audit(fields: Mapping[str, Any]) -> None:
    """Write one line. Lines of the same call have the same `request_id`: one says who called, one what was changed."""
    logger.info("%s", json.dumps({**fields, "request_id": current_request_id()}))
