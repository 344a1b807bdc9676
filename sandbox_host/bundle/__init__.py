"""From the bytes of a directory to a `VerifiedBundle`: the room that decides what may ever run.

What comes in is hostile: a directory that anyone may have arranged, an envelope that anyone may
have written. What goes out is a `sandbox_host.bundle.verify.VerifiedBundle`, which only `verify`
can make, and a private read-only copy of exactly the bytes that it verified.

The way through: `reader.read_directory` ⇒ `Contents` ⇒ `verify.verify` ⇒ `VerifiedBundle` ⇒
`stage.stage`. Only `signature` and `keys` touch cryptography; `reader`, `stage`, `protected` and
`keys` touch the file system; everything else is pure.
"""

from __future__ import annotations

from sandbox_host.bundle.contents import ENVELOPE_NAME, Contents, ReadLimits

__all__ = ["ENVELOPE_NAME", "Contents", "ReadLimits"]
