"""How a running plugin is doing: its own word, what the host measured, and who is told.

What a plugin reports is hostile input and can make the verdict worse, never better. `verdict` is
one judgement, `hysteresis` what counts after several, `alerts` what an operator is told of it. All
of it is pure and takes the clock as an argument; sinks are somebody else's.
"""

from __future__ import annotations
