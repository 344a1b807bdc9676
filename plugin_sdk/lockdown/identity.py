"""A user id of one's own (credentials(7)). Leaving uid 0 also empties the capability sets."""

from __future__ import annotations

import os


def become(uid: int) -> None:
    """Become this user and the group of the same number, without any other group, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
