"""The Linux mechanisms of the lock-down: one a file, each applied exactly as it is told.

What comes in: the standard library, through the C library's own entry points. Nothing here decides
or reads a configuration; numbers come from the kernel's uapi headers. Every function raises
OSError where the kernel refuses. `plugin_sdk.child.confine` puts them in order;
`plugin_sdk.nursery` uses those that are needed before there is a plugin's process.
"""
