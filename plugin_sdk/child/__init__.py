"""What runs inside a plugin's process: lock-down first, then the plugin, then calls.

Only the standard library and msgpack come in, and as little of both as can be: every import here
is paid at every start of every plugin. Read in this order: `__main__` (the numbered steps), `io`,
`confine`, `loader`, `interface`, `loop`, `faults`.

Once a plugin is imported nothing in this process can be trusted, this room included. What it
checks is for the author's comfort; the host checks everything again.
"""
