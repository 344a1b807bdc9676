"""Load, drain, clean up, unload; threads; too much at once; nothing left behind."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, Cause, Guarantee, Layer, SandboxHost, State
from sandbox_host.errors import (
    BackpressureError,
    PluginEndedError,
    PluginError,
    PluginNotFoundError,
    UsageError,
)
from tests.support.host import HOLD, Load, Workshop
from tests.support.traces import eventually, held

pytestmark = pytest.mark.needs("landlock", "seccomp")

TIDY = """
def cleanup():
    with open(context().data_dir + "/clean", "w") as file:
        file.write("yes")
    return True
"""


def outstanding(plugin: BlockingPlugin) -> int:
    return len(plugin._process.channel.outstanding())


def test_unload_drains_then_cleans_up(host: BlockingHost, workshop: Workshop, load: Load) -> None:
    plugin = load(HOLD + TIDY)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(plugin.call, "hold", number) for number in range(3)]
        assert eventually(lambda: outstanding(plugin) == 3)
        unloading = pool.submit(host.unload, "sample")
        assert eventually(lambda: plugin.state is State.DRAINING)
        workshop.let_go()
        assert [call.result() for call in calls] == [0, 1, 2]
        unloading.result()
    assert plugin.state is State.STOPPED
    assert plugin.cause is Cause.UNLOADED
    assert (workshop.data_dir("sample") / "clean").read_text() == "yes"
    with pytest.raises(PluginEndedError, match="unloaded"):
        plugin.call("echo")


def test_no_new_calls_while_draining(host: BlockingHost, workshop: Workshop, load: Load) -> None:
    plugin = load(HOLD)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(plugin.call, "hold", "done")
        assert eventually(lambda: outstanding(plugin) == 1)
        unloading = pool.submit(host.unload, "sample")
        assert eventually(lambda: plugin.state is State.DRAINING)
        with pytest.raises(PluginError, match="draining"):
            plugin.call("echo", 1)
        workshop.let_go()
        assert slow.result() == "done"
        unloading.result()


def test_unload_ends_what_does_not_leave(workshop: Workshop) -> None:
    deaf = """
        def cleanup():
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass
    """
    with SandboxHost.blocking(workshop.config(stop_timeout_seconds=0.3)) as host:
        plugin = host.load(workshop.write(deaf))
        host.unload("sample")
        assert plugin._process.ended.is_set()
        assert host.plugins == {}


@pytest.mark.parametrize("end", ["return False", "raise RuntimeError('no')", "os._exit(9)"])
def test_bad_cleanup_does_not_keep_the_plugin(host: BlockingHost, load: Load, end: str) -> None:
    plugin = load(f"def cleanup():\n    {end}\n")
    host.unload("sample")
    assert plugin._process.ended.is_set()
    assert host.plugins == {}
    assert load().call("echo", 1) == 1


def test_closing_the_host_unloads_everything(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugins = [host.load(workshop.write(TIDY, name=name)) for name in ("one", "two", "three")]
        pids = [plugin.receipt.pid for plugin in plugins]
    assert {plugin.state for plugin in plugins} == {State.STOPPED}
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert list((workshop.state_dir / "run").iterdir()) == []
    assert (workshop.data_dir("two") / "clean").exists()
    with pytest.raises(UsageError):
        host.load("anywhere")


def test_private_copies_and_scratch_are_removed_at_unload(
    host: BlockingHost, workshop: Workshop, load: Load
) -> None:
    load("""
        deep = context().scratch_dir
        for _ in range(50):
            deep += "/d"
            os.mkdir(deep)
    """)
    host.unload("sample")
    (run,) = (workshop.state_dir / "run").iterdir()
    assert list((run / "bundles").iterdir()) == []
    assert list((run / "scratch").iterdir()) == []


def test_no_descriptor_or_thread_is_left(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        host.load(workshop.write())
        host.unload("sample")
        before = held()
        for end in ("", "raise RuntimeError", "os._exit(1)"):
            try:
                host.load(workshop.write(end)).call("echo", 1)
            except PluginError:
                continue
            host.unload("sample")
        # Whoever waited is told the end before all is put away, which other threads do.
        assert eventually(lambda: held() <= before), held() - before


def test_many_threads_call_one_plugin(host: BlockingHost, load: Load) -> None:
    plugin = load()

    def ask(number: int) -> bool:
        return all(plugin.call("echo", [number, i]) == [number, i] for i in range(100))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    assert plugin.usage().calls == 800


def test_calls_of_many_threads_when_the_plugin_ends(
    host: BlockingHost, workshop: Workshop, load: Load
) -> None:
    plugin = load(HOLD + "\n@operation\ndef leave():\n    hold()\n    os._exit(7)\n")

    def ask(operation: str) -> str:
        with pytest.raises(PluginEndedError) as caught:
            plugin.call(operation)
        return caught.value.cause

    with ThreadPoolExecutor(8) as pool:
        causes = [pool.submit(ask, "leave")]
        assert eventually(lambda: outstanding(plugin) == 1)
        causes += [pool.submit(ask, "echo") for _ in range(7)]
        assert eventually(lambda: outstanding(plugin) == 8)
        workshop.let_go()
        assert {cause.result() for cause in causes} == {Cause.EXITED}


def test_backpressure(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config(max_outstanding_calls=3)) as host:
        plugin = host.load(workshop.write(HOLD))
        with ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(plugin.call, "hold", number) for number in range(3)]
            assert eventually(lambda: outstanding(plugin) == 3)
            with pytest.raises(BackpressureError):
                plugin.call("echo", 1)
            workshop.let_go()
            assert [call.result() for call in calls] == [0, 1, 2]
        assert plugin.call("echo", 1) == 1


def test_plugin_that_does_not_read_is_bounded(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(HOLD))
        with ThreadPoolExecutor(16) as pool:
            held = pool.submit(plugin.call, "hold", "done")
            assert eventually(lambda: outstanding(plugin) == 1)
            calls = [pool.submit(plugin.call, "echo", bytes(8_000_000)) for _ in range(12)]
            # Nothing else can have ended them: it has not come to read them.
            assert eventually(lambda: sum(call.done() for call in calls) >= 8)
            refused = [call for call in calls if call.done()]
            workshop.let_go()
            assert {type(call.exception()) for call in refused} == {BackpressureError}
            assert held.result() == "done"
            assert plugin.call("echo", 1) == 1


def test_loading_from_many_threads_starts_one(host: BlockingHost, workshop: Workshop) -> None:
    bundle = workshop.write()

    def attempt(_: int) -> str:
        try:
            return str(host.load(bundle).state)
        except PluginError as error:
            return error.code

    with ThreadPoolExecutor(6) as pool:
        outcomes = sorted(pool.map(attempt, range(6)))
    assert outcomes == ["already-loaded"] * 5 + ["ready"]


def test_unloading_what_is_not_there(host: BlockingHost) -> None:
    with pytest.raises(PluginNotFoundError, match="nothing"):
        host.unload("nothing")


def test_receipt_names_every_layer(host: BlockingHost, load: Load) -> None:
    plugin = load()
    assert {report.layer for report in plugin.receipt.layers} == set(Layer)
    assert set(plugin.receipt.active) == set(plugin.plan.layers)
    assert all(report.detail for report in plugin.receipt.layers)
    assert {report.guarantee for report in plugin.receipt.guarantees} == set(Guarantee)


@pytest.mark.needs("pid-namespace")
def test_a_plugin_is_process_one_of_its_own_world(host: BlockingHost, load: Load) -> None:
    plugin = load()
    assert plugin.call("pid") == 1
    assert plugin.receipt.pid not in {1, os.getpid()}


def test_verdict_of_health(host: BlockingHost, load: Load) -> None:
    healthy = load()
    assert healthy.health().status == "healthy"
    ill = load(
        "def health_check():\n    return {'status': 'error', 'message': 'broken'}\n", name="ill"
    )
    assert ill.health().status == "unhealthy"
