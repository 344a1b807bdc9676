"""What a plugin may use, has used, and what happens when it uses more.

`enforce` decides, `ledger` adds up; both are pure and take the clock as an argument. `place` reads
where in the plugin's code an excess happened. Samples come in from the backend; nothing here
reads a process.
"""
