"""Confinement by the Linux kernel: one mechanism a file, and `backend`, which puts them in order.

Pure, and testable without a kernel: `bpf`, `seccomp`, `syscalls`, `landlock`, `compile`. Reading
this machine: `probe`, `procfs`, `attest`. Touching processes: `process`, `backend`. What comes in
is a `SandboxPlan`; what goes to the child is plain data, which it applies without deciding
anything (`plugin_sdk.child.confine`).
"""
