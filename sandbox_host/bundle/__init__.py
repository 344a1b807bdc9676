"""From the bytes of a directory to a `VerifiedBundle`: the room that decides what may ever run.

What comes in is hostile: a directory or an archive that anyone may have arranged, an envelope that
anyone may have written. What goes out is a `sandbox_host.bundle.verify.VerifiedBundle`, which only
`verify` can make, and a private read-only copy of exactly the bytes that it verified.

The way through: `source.read_bundle` ⇒ `Contents` ⇒ `verify.verify` ⇒ `VerifiedBundle` ⇒
`stage.stage`. Only `signature` and `keys` touch cryptography; `reader`, `archive`,
`archive_write`, `stage`, `protected`, `keys` and `trust_install` touch the file system; the rest
is pure.
"""

from __future__ import annotations

from sandbox_host.bundle.contents import ENVELOPE_NAME, Contents, ReadLimits

__all__ = ["ENVELOPE_NAME", "Contents", "ReadLimits"]
