"""Finding a plugin by what it can do: the first healthy one, and why there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import KindMismatchError, NoSuchCapabilityError, PluginEndedError
from sandbox_host.runtime import blocking, finding
from sandbox_host.runtime.blocking import BlockingHost
from tests.support.host import HOLD, Workshop
from tests.support.traces import eventually

MODEL = """
import os

class Guess(Model):
    def predict(self, rows):
        return context().name

model = Guess()

@operation
def die():
    os._exit(4)
"""

HEALTH = """
status = ["healthy"]

@operation
def feel(word):
    status[0] = word

def health_check():
    while status[0] == "hanging" and not os.path.exists(context().data_dir + "/go-on"):
        time.sleep(0.005)
    return {"status": status[0], "message": "as it is"}
"""


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as host:
        yield host


def _model(workshop: Workshop, name: str, source: str = MODEL + HEALTH) -> Path:
    return workshop.write(source, name=name, capabilities={"ai_model": True, "vision": name == "b"})


def test_the_first_healthy_one_in_load_order(host: BlockingHost, workshop: Workshop) -> None:
    first, second = (host.load(_model(workshop, name)) for name in ("b", "a"))
    assert host.find("ai_model").name == "b"
    assert host.find("ai_model", exclude=["B"]).name == "a"
    assert host.find("vision", kind="Model", operation="predict").name == "b"
    assert [plugin.name for plugin in host.find_all("ai_model")] == ["b", "a"]
    assert host.find_all("nothing") == ()

    first.call("feel", "warning")  # degraded is not unhealthy
    assert host.find("ai_model").name == "b"
    first.call("feel", "error")
    assert host.find("ai_model").call("predict", []) == "a"
    second.call("feel", "error")
    with pytest.raises(NoSuchCapabilityError) as caught:
        host.find("ai_model")
    assert [name for name, _ in caught.value.reasons] == ["b", "a"]
    assert 'it reports "error": as it is' in caught.value.reasons[0][1]
    first.call("feel", "healthy")
    assert host.find("ai_model").name == "b"


def test_one_that_ended_is_passed_over(host: BlockingHost, workshop: Workshop) -> None:
    found, _ = (host.load(_model(workshop, name, MODEL)) for name in ("b", "a"))
    assert host.find("ai_model").name == "b"
    with pytest.raises(PluginEndedError):
        found.call("die")
    assert host.find("ai_model").name == "a"
    assert [plugin.name for plugin in host.find_all("ai_model")] == ["a"]
    with pytest.raises(NoSuchCapabilityError, match="status 4"):
        host.find("vision")
    host.load(_model(workshop, "b", MODEL))  # it is the last one now
    assert host.find("ai_model").name == "a"
    host.unload("a")
    assert host.find("ai_model").name == "b"


def test_one_that_is_busy_is_the_last_resort(
    host: BlockingHost, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "ASKING_SECONDS", 0.1)
    busy = host.load(_model(workshop, "b", MODEL + HEALTH + HOLD))
    call = busy.start("hold", 5)
    assert host.find("ai_model").name == "b"
    assert host.find("ai_model").name == "b"
    assert len(busy._process.channel.outstanding()) == 2  # it is not asked again and again
    host.load(_model(workshop, "a"))
    assert host.find("ai_model").name == "a"
    workshop.let_go("b")
    assert call.result() == 5
    monkeypatch.setattr(blocking, "ASKING_SECONDS", 10)
    assert eventually(lambda: host.find("ai_model").name == "b")


def test_one_that_hangs_is_not_waited_for(
    host: BlockingHost, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "ASKING_SECONDS", 0.1)
    monkeypatch.setattr(finding, "ASKING_SECONDS", 0.1)
    host.load(_model(workshop, "b")).call("feel", "hanging")
    with pytest.raises(NoSuchCapabilityError, match=r"did not answer .* within 0\.1 s"):
        host.find("vision")
    workshop.let_go("b")


def test_another_kind(host: BlockingHost, workshop: Workshop) -> None:
    host.load(_model(workshop, "b", MODEL))
    with pytest.raises(KindMismatchError, match="b is a Model") as caught:
        host.find("ai_model", kind="DataSource")
    assert (caught.value.wanted, caught.value.found) == ("DataSource", "Model")
    with pytest.raises(NoSuchCapabilityError, match="have ai_model, vision"):
        host.find("data_source")


def test_for_asyncio(workshop: Workshop) -> None:
    async def run() -> None:
        async with SandboxHost(workshop.config()) as host:
            with pytest.raises(NoSuchCapabilityError, match="none has any"):
                await host.find("ai_model")
            paths = [_model(workshop, name) for name in ("b", "a")]
            await asyncio.gather(*map(host.load, paths))
            assert {plugin.name for plugin in host.find_all("ai_model")} == {"a", "b"}
            model = await host.find("vision")
            other = await host.find("ai_model", exclude=[model.name])
            assert (model.name, other.name) == ("b", "a")
            await model.call("feel", "error")
            assert (await host.find("ai_model")).name == "a"
            with pytest.raises(NoSuchCapabilityError):
                await host.find("vision")

    asyncio.run(run())
