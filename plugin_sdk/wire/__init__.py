"""The shared protocol, sans-I/O: bytes in, messages out, on both sides of the pipe.

Nothing in this room opens, reads, waits or looks at a clock, and nothing but `msgpack` comes in:
the confined child imports it before it is confined, in milliseconds, and the host drives the very
same code over hostile input. Read in this order: `limits`, `frames`, `codec`,
`arrays`, `pieces`, `messages`, `state`, `connection`.
"""
