"""Why a service was not done, in the form in which the plugin that asked is told."""

from __future__ import annotations

from typing import Final

from sandbox_host.runtime.answers import clean

PERMISSION: Final = "permission"
STORE: Final = "store"
QUOTA: Final = "quota"
CALL: Final = "call"
"""Kinds: which of its own errors the SDK raises for it; it has one for what has no kind as well."""

_MAX_TEXT: Final = 1_000
_MAX_WORD: Final = 200


class RefusalError(Exception):
    """A service was not done, and the plugin is told why.

    Args:
        text: the reason, in one sentence; may hold a stranger's words.
        kind: one of those above, or "".
        more: what else the SDK's error of this kind has.
    """

    def __init__(self, text: str, kind: str = "", **more: str) -> None:
        super().__init__(text)
        self._text = text
        self._kind = kind
        self._more = more

    def told(self) -> dict[str, str]:
        """Return the payload of the `Answer`."""
        told = {"message": clean(self._text, _MAX_TEXT)}
        if self._kind:
            told["kind"] = self._kind
        return told | {key: clean(value, _MAX_WORD) for key, value in self._more.items()}
