"""A new version rehearses what was recorded of the old one, before it takes the old one's place.

It does so in a sandbox of its own, with a data directory, a store and services of its own: nothing
that it does there reaches the plugin that serves meanwhile.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox_host.bundle.contents import Contents
from sandbox_host.errors import PluginError
from sandbox_host.observe.recording_reader import read_recording

if TYPE_CHECKING:
    from sandbox_host.admission.instances import Instance
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.config import HostConfig
    from sandbox_host.observe.recording import Recording


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a new version has to do as it was done before.

    Attributes:
        recording: file that ``record`` made.
        tolerance: numbers are the same that differ by no more than this, or by this part of them.
        ignore: names of fields that may differ.

    Raises:
        ValueError: the tolerance is no number from 0 on.
    """

    recording: str | os.PathLike[str]
    tolerance: float = 0.0
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance: {self.tolerance} is no number from 0 on")

    def read(self) -> Recording:
        """Return the recording.

        Raises:
            RecordingError: it cannot be read.
        """
        return read_recording(Path(self.recording))


def rehearse(
    rehearsal: Rehearsal,
    recording: Recording,
    bundle: VerifiedBundle,
    config: HostConfig,
    instance: Instance | None = None,
) -> str:
    """Play a recording against the verified files of a new version.

    Args:
        rehearsal: what may differ.
        recording: what `Rehearsal.read` returned.
        bundle: the new version.
        config: of the host that is to take it; its state is not touched.
        instance: which of several instances is to be replaced: its configuration and its limits
            are what the new version rehearses with.

    Returns:
        The first difference, in one line; "" where there is none.

    Raises:
        UsageError: the recording is of another plugin.
        RecordingError: it has nothing that can be compared.
    """
    # Here, because the sandbox of its own is a host, which is made of what imports this.
    from sandbox_host.runtime.replay import ReplayOptions, replay

    contents = Contents(bundle.files, None, bundle.origin)
    options = ReplayOptions(tolerance=rehearsal.tolerance, ignore=rehearsal.ignore)
    services = bundle.manifest.permissions.services
    try:
        replayed = replay(recording, contents, services, config, options, instance=instance)
    except PluginError as error:
        return error.message
    return str(replayed.found[0]) if replayed.found else ""
