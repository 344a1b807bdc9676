"""What host and nursery say to each other beside packed dicts: sizes, and how a child ended."""

from __future__ import annotations

import struct

# A packet is one dict of names and numbers, with what a child is to prepare: some twenty mounts.
# Descriptors travel beside it.
MAX_PACKET_BYTES = 65_536

# In, out, standard output, standard error, trace, the arena, the network desk where it may ask
# there, and exit: what a child is given, in this order.
PASSED_DESCRIPTORS = 8

EXIT_RECORD = struct.Struct("<iqq")
"""How a child ended: wait status, CPU time in microseconds, peak resident size in bytes."""

# Where a child finds its ends of the pipes.
CHILD_IN, CHILD_OUT, CHILD_TRACE, CHILD_DESK = 3, 4, 5, 6
