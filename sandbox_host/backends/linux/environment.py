"""The environment of a plugin's process: the host's own few variables, and those that were granted.

Nothing is inherited. A granted variable is read when the plugin is loaded, once, and its value
travels to the process and nowhere else: neither the receipt nor a log, journal or dossier has it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NoReturn

from sandbox_host.errors import ConfinementError
from sandbox_host.model import Layer
from sandbox_host.reading import shown_bytes
from sandbox_host.terms import MAX_VARIABLE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandbox_host.backends.base import Places

_THREAD_COUNTS: Final = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
"""Libraries of linear algebra start a thread for each CPU, with tens of MiB of addresses each."""


def base_environment() -> dict[str, str]:
    """Return the environment of every process of ours; nothing of the host's is in it."""
    threads = dict.fromkeys(_THREAD_COUNTS, "1")
    return {
        "LANG": "C.UTF-8",
        # One arena of the C library reserves 64 MiB of address space per thread.
        "MALLOC_ARENA_MAX": "2",
        "TZ": "UTC",
        **threads,
    }


OWN_VARIABLES: Final = frozenset({*base_environment(), "HOME", "TMPDIR"})
"""What every plugin has, and no grant replaces."""


def environment(
    places: Places, granted: Iterable[str] = (), source: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the child's whole environment.

    Args:
        places: where the plugin's directories are.
        granted: names of the host's variables; one that is not set there is not set here.
        source: the host's environment; that of this process by default.

    Raises:
        ConfinementError: a value is too long, or no text.
    """
    own = {"HOME": str(places.data_dir), "TMPDIR": str(places.scratch_dir)}
    found = _host_variables(granted, os.environ if source is None else source)
    return {**found, **base_environment(), **own}


def _host_variables(names: Iterable[str], source: Mapping[str, str]) -> dict[str, str]:
    found = {name: source[name] for name in names if name in source}
    for name, value in found.items():
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            _refuse(name, "its value is no text in UTF-8")
        if size > MAX_VARIABLE_BYTES:
            most = shown_bytes(MAX_VARIABLE_BYTES)
            _refuse(name, f"its value has {size} bytes, more than {most}")
    return found


def _refuse(name: str, why: str) -> NoReturn:
    text = f"The granted environment variable {name} cannot be handed to the plugin: {why}."
    remedy = "Set another value where the host is started, or hand it over in a file."
    raise ConfinementError(text, layer=Layer.ENVIRONMENT, remedy=remedy)
