"""What the operating system can do to a process, behind one small interface.

`base` has the interface, `select` the only line that names an operating system, and each folder
one system. A backend takes a `SandboxPlan`, which only admission can make, compiles it to plain
data, starts a child that applies it, and attests from outside that it is in force. It never sees
a plugin's byte: the child imports nothing before the backend has returned.
"""
