"""What a host for a moment takes over of the operator's configuration, and what it does not."""

from __future__ import annotations

import pytest

from sandbox_host.config import HostConfig
from sandbox_host.runtime.throwaway import ThrowawayHost


def test_nobody_is_told_of_what_is_only_tried() -> None:
    alerts = {"webhook": "http://127.0.0.1:9/", "command": ["/bin/false"], "journal": True}
    config = HostConfig(alerts=alerts, forward_journal=True, log_bytes=8_192)
    with ThrowawayHost(config) as trial:
        made = trial.core.config
        told = made.alerts
        assert (told.log, told.journal, told.event) == (False, False, False)
        assert (told.webhook, told.command, made.forward_journal) == (None, (), False)
        assert made.log_bytes == 8_192


@pytest.mark.parametrize(
    ("uids", "tried"),
    [((61_184, 4_000), (65_120, 64)), ((70_000, 10), (70_005, 5)), ((70_000, 1), (70_000, 1))],
)
def test_user_ids_are_not_those_that_plugins_have(
    uids: tuple[int, int], tried: tuple[int, int]
) -> None:
    with ThrowawayHost(HostConfig(plugin_uids=uids)) as trial:
        assert trial.core.config.plugin_uids == tried
