"""`sandbox-host run` as a service: its control socket, its supervisor's word, its plugin directory.

`place` is where the socket is, and who has it. `frames` and `protocol` are what passes over it,
`peers` who may, `server` and `client` its two ends, `operations` what can be asked. `steward` does
what a watched plugin directory says, `settings` what a changed configuration does, `notify` tells
systemd. `service` is all of it around one host.
"""

from __future__ import annotations
