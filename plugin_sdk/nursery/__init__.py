"""The nursery: one small clean process per host that forks the plugins' processes.

It runs our own code only, holds no secret, and is the parent of every plugin. Where the kernel
allows, it lives in a user namespace (which it was exec'd inside, so that an ordinary user's host
may still read its children's namespaces and mounts, see ptrace(2) on ``PTRACE_MODE_READ``) and is
pid 1 of a pid namespace: when it ends, the kernel ends every plugin with it.

`__main__` gets it there, `trial` finds out what else works here, `serve` forks. What comes in: the
standard library, `plugin_sdk.lockdown`, and everything that a child needs, imported once.
"""
