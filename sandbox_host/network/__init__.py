"""A plugin's only way to the network: it asks, the host decides, connects, and hands over.

`allowlist` decides and is pure; `desk` serves one plugin; `dial` resolves and connects; `meter`
counts what passes, by what the kernel tells `diag`. The plugin itself has no network: it can make
no connection of its own, and what it is given leads nowhere else. `unix` only looks at sockets to
which a plugin connects by itself.
"""
