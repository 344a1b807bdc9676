"""How a running plugin is doing: its own word, and what the host measured.

What a plugin reports is hostile input and can make the verdict worse, never better.
"""

from __future__ import annotations
