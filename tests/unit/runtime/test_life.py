"""When a plugin that is to be ended is killed."""

from __future__ import annotations

from sandbox_host.model import Cause
from sandbox_host.runtime.causes import Ending
from sandbox_host.runtime.life import Life


def test_it_is_killed_when_nothing_more_comes_and_not_later_than_said_first() -> None:
    life = Life("sample", 86_400)
    life.hasten(1.0)
    assert life.kill_at == 0.0
    assert life.condemn(Ending(Cause.MEMORY, "too much"), 10.0)
    seen = []
    for quiet_until in (3.0, 4.0, 9.0, 12.0):
        life.hasten(quiet_until)
        seen.append(life.kill_at)
    assert seen == [3.0, 4.0, 9.0, 10.0]
    assert not life.condemn(Ending(Cause.CPU, "again"), 20.0)
    life.hasten(30.0)
    assert life.kill_at == 10.0
