"""Our attack collection, a module for each boundary.

The same bytes run three times over: imported by the host, which only reads the table; in a plain
interpreter, where each attack has to succeed; and as a plugin, where it has to fail. They import
the standard library and each other, nothing else, and none of them harms the machine where it gets
through: what an attack proves is opened, not written; bounded, not exhausted; undone where it
would stay.
"""
