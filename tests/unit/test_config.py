"""The operator's configuration: strict by default, and no way to switch a protection off."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from sandbox_host.config import HostConfig, default_config_dir, default_state_dir
from sandbox_host.errors import ConfigError
from sandbox_host.model import MIB, Grant, Guarantee, Layer, Limits, Permissions


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def test_defaults_grant_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    config = HostConfig()
    assert config.trust_store == tmp_path / "c/sandbox-host/trust.toml"
    assert config.state_dir == tmp_path / "s/sandbox-host"
    assert config.journal_path == tmp_path / "s/sandbox-host/journal.jsonl"
    assert config.ceilings == Limits()
    assert config.grants == {}
    assert (config.accept_missing, config.disable_layers) == (frozenset(), frozenset())
    assert (config.start, config.plugin_uids, config.cgroup) == ("nursery", (61_184, 4_000), None)
    assert config.log_bytes == 16 * MIB
    assert (config.start_timeout_seconds, config.stop_timeout_seconds) == (30.0, 5.0)
    assert (config.sweep_seconds, config.max_outstanding_calls, config.event_queue) == (
        0.02,
        1024,
        256,
    )


def test_a_relative_xdg_path_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "here")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_config_dir() == tmp_path / ".config/sandbox-host"
    assert default_state_dir() == tmp_path / ".local/state/sandbox-host"


def test_a_whole_file(toml):
    path = toml(
        """
        trust_store = "trust.toml"
        state_dir = "/var/lib/sandbox-host"
        accept_missing = ["landlock", "files"]
        disable_layers = ["landlock"]
        start = "exec"
        plugin_uids = "70000-70099"
        cgroup = "delegated"
        start_timeout_seconds = "10 s"
        log_bytes = "1 MiB"
        event_queue = 8

        [limits]
        memory = "1 GiB"
        cpu_time = "90 s"
        cpu_total = "2 h"
        scratch = "8 MiB"

        [grants."weather_*"]
        publish = ["weather_*"]
        read = ["/srv/weather"]
        native_code = true

        [plugin_config.weather_model]
        epochs = 3
        """
    )
    config = HostConfig.from_toml(path)
    assert config.trust_store == path.parent / "trust.toml"
    assert config.state_dir == Path("/var/lib/sandbox-host")
    assert config.accept_missing == {Layer.LANDLOCK, Guarantee.FILES}
    assert config.disable_layers == {Layer.LANDLOCK}
    assert (config.start, config.plugin_uids) == ("exec", (70_000, 100))
    assert config.cgroup == path.parent / "delegated"
    assert config.start_timeout_seconds == 10.0
    assert config.log_bytes == MIB
    assert config.ceilings == Limits(
        memory_bytes=1024 * MIB,
        cpu_seconds=90.0,
        cpu_total_seconds=7200,
        scratch_bytes=8 * MIB,
    )
    assert config.grants["weather_*"] == Grant(
        publish=("weather_*",),
        read=("/srv/weather",),
        native_code=True,
        named=frozenset({"publish", "read", "native_code"}),
    )
    assert config.plugin_config["weather_model"] == {"epochs": 3}


def test_the_production_configuration_of_document_a(toml):
    config = HostConfig.from_toml(
        toml(
            """
            plugin_directory = "/opt/abi/plugins"
            auto_discovery = true
            load_on_startup = true
            enable_sandboxing = true
            require_signatures = true
            restrict_permissions = true
            enable_profiling = true
            enable_monitoring = true
            health_check_interval = 30000
            metrics_collection = true

            [performance_thresholds]
            max_operation_time = 1000
            max_memory_usage = 104857600
            max_cpu_usage = 80.0

            [resource_limits]
            max_memory = 536870912
            max_cpu_time = 60000000000
            max_file_descriptors = 1000
            """
        )
    )
    assert config.plugin_directory == Path("/opt/abi/plugins")
    assert config.ceilings == Limits()
    assert config.performance_thresholds.max_memory_usage == 100 * MIB
    assert config.health_check_interval == 30_000


@pytest.mark.parametrize("key", ["enable_sandboxing", "require_signatures", "restrict_permissions"])
def test_protections_stay_on(toml, key):
    with pytest.raises(ConfigError, match=f"{key} = false is refused") as caught:
        HostConfig.from_toml(toml(f"{key} = false"))
    assert caught.value.remedy.startswith("Remove the line; ")
    with pytest.raises(ConfigError, match=f"{key} = false is refused"):
        HostConfig(**{key: False})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trust_stor = 'x'", 'trust_stor: unknown key; did you mean "trust_store"?'),
        ("ceilings = {}", "ceilings: unknown key"),
        ("event_queue = true", "event_queue: expected a valid integer, got true"),
        ("event_queue = 0", "event_queue: expected greater than or equal to 1, got 0"),
        ("enable_profiling = 1", "enable_profiling: expected a valid boolean, got 1"),
        ("sweep_seconds = 'soon'", "sweep_seconds: expected seconds as a number"),
        ("state_dir = 3", "state_dir: expected an instance of Path, got 3"),
        (
            "accept_missing = ['selinux']",
            "accept_missing[0]: expected the name of a guarantee (files, ",
        ),
        ("accept_missing = ['files', 'files']", 'accept_missing[1]: "files" is listed twice'),
        ("disable_layers = ['files']", "disable_layers[0]: expected the name"),
        ("disable_layers = 'landlock'", "disable_layers: expected a list"),
        ("disable_layers = ['watchdog']", "disable_layers: watchdog cannot be switched off"),
        ("start = 'fork'", "start: expected 'nursery' or 'exec', got \"fork\""),
        ("plugin_uids = [61184, 4000]", 'plugin_uids: expected user ids as "first-last"'),
        ("cgroup = 3", "cgroup: expected an instance of Path, got 3"),
        ("accept_missing = 'landlock'", "accept_missing: expected a list"),
        ("[limits]\nmemory = true", "limits.memory: expected bytes"),
        ("[limits]\nmemroy = 1", 'limits.memroy: unknown key; did you mean "memory"?'),
        ("[grants.Weather]", "grants.Weather: expected a plugin's identity in lower case"),
        ("[grants.a]\nread = ['etc']", "grants.a.read[0]: expected an absolute path"),
        ("[plugin_config.a]\nx = 2020-01-01", "plugin_config.a.x: expected text, a number"),
        ("[plugin_config]\na = 3", "plugin_config.a: expected an object, got 3"),
        ("[resource_limits]\nmax_memry = 1", 'max_memry: unknown key; did you mean "max_memory"?'),
        ("[resource_limits]\nmax_cpu_time = 60", "limits.cpu_time: expected a value from"),
        ("[limits]\nmemory = '1 GB'\n[resource_limits]\nmax_memory = 1", "keep one"),
        ("[performance_thresholds]\nmax_cpu = 3", "performance_thresholds.max_cpu: unknown key"),
        ("x =", "is not TOML: Invalid value"),
    ],
)
def test_refused(toml, text, message):
    path = toml(text)
    with pytest.raises(ConfigError) as caught:
        HostConfig.from_toml(path)
    assert message in str(caught.value)
    assert str(caught.value).count(str(path)) == 1
    assert not caught.value.message.endswith(("?.", "...."))


def test_what_is_wrong_in_a_file_is_not_its_size(toml):
    with pytest.raises(ConfigError) as caught:
        HostConfig.from_toml(toml("x ="))
    assert caught.value.remedy == "Correct it there."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"limits": {}}, "limits: is the name of the table in TOML; here it is `ceilings`."),
        (
            {"ceilings": {"memory": "1 B"}},
            'ceilings.memory: expected a value from "16 MiB" to "1024',
        ),
        ({"ceilings": {"memroy": 1}}, 'ceilings.memroy: unknown key; did you mean "memory"?'),
    ],
)
def test_in_python_the_fields_have_their_own_names(fields, message):
    with pytest.raises(ConfigError) as caught:
        HostConfig(**fields)
    assert message in caught.value.message
    assert not caught.value.message.endswith("?.")


def test_an_unknown_name_lists_all_guarantees_and_layers(toml):
    with pytest.raises(ConfigError) as caught:
        HostConfig.from_toml(toml("accept_missing = ['x']"))
    assert ", ".join(Layer) in str(caught.value)
    assert ", ".join(Guarantee) in str(caught.value)


def test_a_file_that_anybody_may_write(toml):
    path = toml("")
    path.chmod(0o606)
    with pytest.raises(ConfigError, match="written by everybody"):
        HostConfig.from_toml(path)


@pytest.mark.parametrize("content", [b"\xff", b"#" * (MIB + 1), None])
def test_unreadable(tmp_path, content):
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.toml"):
        HostConfig.from_toml(path)


def test_made_in_python():
    config = HostConfig(
        ceilings=Limits(memory_bytes=64 * MIB),
        grants={"a": Permissions(read=("/srv",))},
        accept_missing=frozenset({Layer.SECCOMP, Guarantee.PROGRAMS}),
        disable_layers={Layer.SECCOMP},
        plugin_uids=(70_000, 100),
        cgroup="delegated",
        plugin_environment=Path("env"),
    )
    assert config.plugin_environment == Path.cwd() / "env"
    assert config.accept_missing == {Layer.SECCOMP, Guarantee.PROGRAMS}
    assert config.disable_layers == {Layer.SECCOMP}
    assert config.plugin_uids == (70_000, 100)
    assert config.cgroup == Path.cwd() / "delegated"
    with pytest.raises(ConfigError, match=r"ceilings\.threads: expected a whole number, got true"):
        HostConfig(ceilings=Limits(threads=True))
    with pytest.raises(ConfigError, match="stat_dir: unknown key"):
        HostConfig(stat_dir="x")


def test_grants_by_signer():
    key = "0123456789abcdef" * 4
    config = HostConfig(signer_grants={key: {"env": ["TOKEN"]}})
    assert config.signer_grants[key].env == ("TOKEN",)
    for wrong in ("", key[1:], key.upper(), "weather team"):
        with pytest.raises(ConfigError, match="a signer's key id, 64 hexadecimal digits"):
            HostConfig(signer_grants={wrong: {}})


def test_it_cannot_be_changed():
    config = HostConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.event_queue = 3


def test_grants_made_in_python_are_checked():
    grant = Permissions(read=("/srv",), env=("TOKEN",), native_code=True)
    given = HostConfig(grants={"a": grant}).grants["a"]
    assert given == Grant(**asdict(grant), named=frozenset({"read", "env", "native_code"}))
    assert HostConfig(grants={"a": given}).grants["a"] == given
    empty = Grant(named=frozenset({"publish"}))
    assert HostConfig(grants={"a": empty}).grants["a"] == empty
    assert HostConfig(grants={"a": {"publish": []}}).grants["a"] == empty
    with pytest.raises(ConfigError, match=r"grants\.a\.env\[0\]: .*neither requested nor granted"):
        HostConfig(grants={"a": Permissions(env=("LD_PRELOAD",))})
    with pytest.raises(ConfigError, match=r"grants\.a\.write\[0\]: expected an absolute path"):
        HostConfig(grants={"a": Permissions(write=("relative",))})


def test_where_the_hosts_own_files_are(toml, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    path = toml('trust_store = "mine.toml"')
    config = HostConfig.from_toml(path)
    beside = ("mine.toml", "mine.toml.sig", "mine.toml.root.pub")
    wanted = (*(path.parent / name for name in beside), tmp_path / "c/sandbox-host", path)
    assert config.private_paths == wanted
    # What the command line lays over it does not make it forget.
    assert config.model_copy(update={"start": "exec"}).private_paths == wanted
    plain = HostConfig(trust_store=tmp_path / "t")
    assert plain.private_paths[0] == tmp_path / "t"
    assert plain.private_paths[-1] == tmp_path / "c/sandbox-host"


def test_a_fifo_is_no_configuration(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="is no regular file"):
        HostConfig.from_toml(tmp_path / "fifo")
