"""Begins the recording of a plugin that is loaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from sandbox_host.observe.recorder import Recorder, RecordingOptions, Redactor, canonical
from sandbox_host.observe.recording import About

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_host.admission.plan import SandboxPlan

Record: TypeAlias = str | os.PathLike[str] | RecordingOptions
"""What applications say: a file, a directory, or more than that."""


@contextlib.contextmanager
def begun_recording(record: Record | None, plan: SandboxPlan) -> Iterator[Recorder | None]:
    """Give the recorder of a plugin that is being loaded, or None; it ends where loading fails.

    Raises:
        RecordingError: the file cannot be made.
    """
    if record is None:
        yield None
        return
    options = record if isinstance(record, RecordingOptions) else RecordingOptions(record)
    recorder = Recorder(options, _about(plan, options.redact))
    try:
        yield recorder
    except BaseException:
        recorder.close()
        raise


def _about(plan: SandboxPlan, redacted: Iterable[str]) -> About:
    import sandbox_host

    return About(
        plugin=plan.manifest.identity,
        version=plan.manifest.version,
        digest=plan.root_digest,
        config_digest=config_digest(plan, redacted),
        host_version=sandbox_host.__version__,
        started_at=datetime.now(UTC).timestamp(),
    )


def config_digest(plan: SandboxPlan, redacted: Iterable[str]) -> str:
    """Return the SHA-256 of a plugin's configuration without the fields that are redacted."""
    config = Redactor(redacted).value(dict(plan.config))
    return hashlib.sha256(canonical(config)).hexdigest()
