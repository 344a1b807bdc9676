"""What signals ask of `sandbox-host run`. Flags, and no lock: a handler may interrupt anything."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from sandbox_host.cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Asked:
    """What was asked for.

    Attributes:
        stop: by Ctrl-C or SIGTERM.
        reload: by SIGHUP: to read the configuration again.
    """

    stop = False
    reload = False


@contextlib.contextmanager
def heeding_signals() -> Iterator[Asked]:
    """Note signals inside the block, instead of what they do otherwise.

    Where standard input is a terminal, SIGHUP is left as it is: it says that the terminal is gone.
    """
    asked = Asked()

    def stop(_number: int, _frame: object) -> None:
        if asked.stop:
            # Whoever asks twice does not want to wait. The kernel ends the plugins with this
            # process, and the next host removes what it leaves.
            os._exit(Exit.INTERRUPTED)
        asked.stop = True

    def reload(_number: int, _frame: object) -> None:
        asked.reload = True

    handlers = dict.fromkeys(_STOP_SIGNALS, stop)
    if sys.stdin is None or not sys.stdin.isatty():
        handlers[signal.SIGHUP] = reload
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        yield asked
    finally:
        for number, one in before.items():
            signal.signal(number, one)
