"""A process that could not be made: why, and what to do, by the kernel's own word."""

from __future__ import annotations

import errno
import os

import pytest

from plugin_sdk.wire.errors import PayloadError
from sandbox_host.backends.linux.shortage import REMEDIES, no_process


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.EAGAIN, "TasksMax="),
        (errno.ENOMEM, "memory"),
        (errno.EMFILE, "LimitNOFILE="),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOSPC, "user.max_pid_namespaces"),
        (errno.EUSERS, "/proc/sys/user"),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_each_has_a_remedy(number: int, word: str) -> None:
    error = no_process("The process for sample", OSError(number, os.strerror(number)))
    assert error.layer == "process"
    assert os.strerror(number) in error.message
    assert word in error.remedy
    assert REMEDIES[number] == error.remedy


@pytest.mark.parametrize("cause", [OSError(errno.EIO, "x"), OSError("x"), PayloadError("x")])
def test_others_have_one_too(cause: Exception) -> None:
    assert no_process("The process for sample", cause).remedy
