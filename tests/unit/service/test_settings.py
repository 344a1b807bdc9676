"""What a configuration that was read again changes."""

from __future__ import annotations

from pathlib import Path

from sandbox_host import HostConfig, Permissions
from sandbox_host.service.settings import LIVE, reconfiguration


def test_what_can_change_does_and_the_rest_is_told(tmp_path: Path) -> None:
    current = HostConfig(state_dir=tmp_path, event_queue=5)
    read = HostConfig(
        state_dir=tmp_path / "other",
        event_queue=6,
        grants={"one": Permissions(publish=("x",))},
        trust_store=tmp_path / "trust.toml",
    )
    outcome = reconfiguration(current, read)
    assert outcome.changed == ("grants", "trust_store")
    assert outcome.waiting == ("event_queue", "state_dir")
    assert outcome.config.grants == read.grants
    assert outcome.config.trust_store == read.trust_store
    assert (outcome.config.state_dir, outcome.config.event_queue) == (tmp_path, 5)
    assert str(outcome) == (
        "configuration read again; taken over: grants, trust_store, for what is loaded or "
        "reloaded from now on; unchanged until the service is restarted: event_queue, state_dir"
    )
    # The second time, only what waits is left.
    assert reconfiguration(outcome.config, read).changed == ()


def test_nothing_has_changed() -> None:
    assert str(reconfiguration(HostConfig(), HostConfig())).endswith("; nothing has changed")


def test_every_live_field_is_one() -> None:
    assert set(HostConfig.model_fields) > LIVE
