"""How an author signs: with a key file, an agent or a program of the author's; and for other tools.

`uri.open_signer` gives a `sandbox_host.bundle.sign.Signer` for what stands after ``--key``. The
host that runs plugins imports nothing of this room: it only verifies.
"""
