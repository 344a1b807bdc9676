"""Values that come over the wire and are no JSON, as JSON shows them."""

from __future__ import annotations

import base64
from typing import Any

from plugin_sdk.wire.limits import MAX_ELEMENTS


def shown(value: Any) -> object:
    """Return bytes and arrays as JSON values; for ``json.dumps(default=…)``."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    array = memoryview(value)  # what else comes over the wire and is no JSON value
    if array.nbytes // array.itemsize <= MAX_ELEMENTS:
        return array.tolist()
    data = base64.b64encode(array.tobytes()).decode()
    return {"format": array.format.strip("@"), "shape": array.shape, "base64": data}
