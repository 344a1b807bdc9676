"""A plugin's interface: what loads, and what is refused with an error that explains itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingHost, SandboxHost
from sandbox_host.errors import (
    AlreadyLoadedError,
    MetadataMismatchError,
    NoSuchOperationError,
    NotSerializableError,
    OperationError,
    PluginDisabledError,
    PluginEndedError,
    PluginNotFoundError,
    StartError,
)
from tests.support.bundles import sign_directory, write_files
from tests.support.host import Load, Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")


@pytest.fixture
def workshop(shared_workshop: Workshop) -> Workshop:
    return shared_workshop


@pytest.fixture
def load(shared_load: Load) -> Load:
    return shared_load


@pytest.fixture
def host(shared_host: BlockingHost, load: Load) -> BlockingHost:
    """No test in here leaves anything with it, see ``shared_load``."""
    return shared_host


PLAIN_FUNCTIONS = '''
"""Written from the issue's paragraph alone: plain functions, nothing of the SDK."""


def init_plugin() -> bool:
    return True


def get_metadata() -> dict:
    return {
        "name": "plain",
        "version": "1.0.0",
        "description": "Plain module functions.",
        "author": "Somebody",
        "dependencies": [],
        "capabilities": ["example_capability"],
    }


def cleanup() -> bool:
    print("cleaned up")
    return True


def health_check() -> dict:
    return {"status": "healthy", "message": "fine", "metrics": {"answers": 42}}
'''

# The example in the plugin system's document, and the one in the plugin directory's.
FRAMEWORK_EXAMPLE = """
{
  "name": "MyPlugin",
  "version": "1.0.0",
  "description": "A sample plugin for the Abi AI Framework",
  "author": "Your Name",
  "license": "MIT",
  "capabilities": {"ai_model": true, "data_source": false, "pipeline": false},
  "dependencies": ["core_framework >= 1.0.0", "ai_models >= 1.0.0"],
  "config": {"model_type": "transformer", "max_input_length": 1024, "temperature": 0.7},
  "events": ["data_processed", "model_updated"]
}
"""
DIRECTORY_EXAMPLE = """
{
  "name": "my_plugin",
  "version": "1.0.0",
  "description": "Example plugin description",
  "author": "Your Name",
  "dependencies": [],
  "capabilities": ["example_capability"],
  "config": {"enabled": true, "setting1": "value1"}
}
"""
BODY = """
from plugin_sdk import context, on, operation

def init_plugin():
    return True

def get_metadata():
    return {metadata!r}

@operation
def settings():
    return context().config
"""


def load_document(host: BlockingHost, workshop: Workshop, text: str) -> Any:
    manifest = json.loads(text)
    handlers = "".join(
        f"\n@on({event!r})\ndef on_{event}(event):\n    pass\n"
        for event in manifest.get("events", [])
    )
    names = ("name", "version", "description", "author", "dependencies", "capabilities")
    metadata = {key: manifest[key] for key in names}
    files = {
        "plugin.json": text.encode(),
        "__init__.py": (BODY.format(metadata=metadata) + handlers).encode(),
        "README.md": b"# An example\n",
    }
    directory = workshop.root / "documents" / manifest["name"]
    return host.load(sign_directory(write_files(directory, files), workshop.key))


def test_examples_of_both_documents(host: BlockingHost, workshop: Workshop) -> None:
    framework = load_document(host, workshop, FRAMEWORK_EXAMPLE)
    assert (framework.name, framework.version) == ("my_plugin", "1.0.0")
    assert framework.call("settings") == json.loads(FRAMEWORK_EXAMPLE)["config"]
    assert framework.plan.manifest.capabilities == ("ai_model",)
    host.unload("MyPlugin")
    directory = load_document(host, workshop, DIRECTORY_EXAMPLE)
    assert directory.name == "my_plugin"
    assert directory.call("settings")["setting1"] == "value1"


def test_two_spellings_of_one_name_clash(host: BlockingHost, workshop: Workshop) -> None:
    load_document(host, workshop, FRAMEWORK_EXAMPLE)
    with pytest.raises(AlreadyLoadedError, match="my_plugin"):
        load_document(host, workshop, DIRECTORY_EXAMPLE)


def test_disabled_by_its_configuration(host: BlockingHost, workshop: Workshop) -> None:
    text = DIRECTORY_EXAMPLE.replace('"enabled": true', '"enabled": false')
    with pytest.raises(PluginDisabledError):
        load_document(host, workshop, text)


@pytest.mark.parametrize("file", ["__init__.py", "main.py"])
def test_plugin_of_plain_functions(tmp_path: Path, file: str) -> None:
    manifest = {
        "name": "plain",
        "version": "1.0.0",
        "description": "Plain module functions.",
        "author": "Somebody",
        "capabilities": ["example_capability"],
    }
    files = {"__init__.py": b"", "plugin.json": json.dumps(manifest).encode()}
    files[file] = PLAIN_FUNCTIONS.encode()
    workshop = Workshop(tmp_path)
    bundle = sign_directory(write_files(workshop.root / "plain", files), workshop.key)
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(bundle)
        assert plugin.state == "ready"
        assert plugin.call("get_metadata")["author"] == "Somebody"
        assert plugin.health().status == "healthy"
        host.unload("plain")
    assert plugin.log_tail() == ["cleaned up"]
    assert plugin.cause == "unloaded"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("version", "2.0.0"),
        ("description", "Different."),
        ("author", "Somebody else"),
        ("capabilities", ["more"]),
        ("dependencies", ["numpy >= 1"]),
    ],
)
def test_metadata_must_agree_with_plugin_json(
    host: BlockingHost, workshop: Workshop, key: str, value: object
) -> None:
    more = f"METADATA[{key!r}] = {value!r}\n"
    plain = (workshop.write() / "__init__.py").read_text()
    bundle = workshop.write(files={"__init__.py": plain + more})
    with pytest.raises(MetadataMismatchError, match=f"'{key}'") as caught:
        host.load(bundle)
    assert caught.value.plugin == "sample"
    assert host.plugins == {}


HOOKS = "METADATA = {}\ndef init_plugin():\n    return True\ndef get_metadata():\n    return {}\n"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"__init__.py": HOOKS.replace("True", "False")}, "refuses to start"),
        ({"__init__.py": HOOKS.replace("True", "None")}, "must return True"),
        ({"__init__.py": HOOKS.replace("True", "1 / 0")}, "ZeroDivisionError"),
        ({"__init__.py": "def init_plugin(): return True"}, "get_metadata"),
        ({"__init__.py": "def get_metadata(): return {}"}, "init_plugin"),
        ({"__init__.py": HOOKS.replace("{}\n", "[]\n")}, "must return a dict"),
        ({"__init__.py": HOOKS + "def f(:"}, "SyntaxError"),
        ({"__init__.py": "raise SystemExit(3)"}, "SystemExit"),
        ({"__init__.py": HOOKS + "import numpyy"}, "numpyy"),
        ({"__init__.py": HOOKS, "main.py": HOOKS}, "defined differently"),
        ({"__init__.py": HOOKS, "main.py": "init_plugin = 3"}, "defined differently"),
        ({"__init__.py": HOOKS.replace("def init", "async def init")}, "async"),
    ],
)
def test_broken_interface(
    host: BlockingHost, workshop: Workshop, files: dict[str, str], told: str
) -> None:
    with pytest.raises(StartError, match="sample") as caught:
        host.load(workshop.write(files={"main.py": "", **files}))
    assert told in str(caught.value) + caught.value.traceback_text
    assert host.plugins == {}


def test_traceback_names_the_plugins_own_line(host: BlockingHost, load: Load) -> None:
    with pytest.raises(StartError) as caught:
        load("def boom():\n    raise RuntimeError('here')\nboom()")
    assert "main.py" in caught.value.traceback_text
    assert "in boom" in caught.value.traceback_text
    assert "lockdown" not in caught.value.traceback_text


def test_load_again_after_a_failed_start(host: BlockingHost, load: Load) -> None:
    with pytest.raises(StartError):
        load("raise RuntimeError('first')")
    assert load().call("echo", 1) == 1


def test_load_twice_and_again_after_unload(host: BlockingHost, load: Load) -> None:
    load()
    with pytest.raises(AlreadyLoadedError, match="sample"):
        load()
    assert host.plugin("sample").call("echo", 1) == 1
    host.unload("sample")
    with pytest.raises(PluginNotFoundError):
        host.plugin("sample")
    assert load().call("echo", 2) == 2


def test_load_again_after_it_ended(host: BlockingHost, load: Load) -> None:
    first = load("@operation\ndef leave():\n    os._exit(1)\n")
    with pytest.raises(PluginEndedError):
        first.call("leave")
    assert first._process.ended.wait(10)
    assert host.plugin("sample").state == "failed"
    with pytest.raises(PluginEndedError, match="exit status 1"):
        first.call("echo")
    second = load()
    assert second.call("echo", 1) == 1
    assert host.plugin("sample").state == "ready"


def test_imports_come_from_the_private_copy(host: BlockingHost, load: Load) -> None:
    plugin = load(
        "@operation\ndef where():\n    from . import helper\n    return helper.__file__\n",
        files={"helper.py": "", "sub/__init__.py": "", "sub/deep.py": "X = 1\n"},
    )
    copy = Path(plugin.call("where"))
    assert copy.is_relative_to(host._core.config.state_dir / "run")
    assert not copy.is_relative_to(host._core.config.state_dir.parent / "plugins")
    assert copy.stat().st_mode & 0o222 == 0


def test_data_is_kept_and_scratch_is_not(host: BlockingHost, load: Load) -> None:
    source = """
        @operation
        def leave_traces():
            for place in (context().data_dir, context().scratch_dir):
                with open(place + "/trace", "a") as file:
                    file.write("x")
            return [os.path.getsize(place + "/trace")
                    for place in (context().data_dir, context().scratch_dir)]
    """
    assert load(source).call("leave_traces") == [1, 1]
    host.unload("sample")
    assert load(source).call("leave_traces") == [2, 1]


def test_configuration_of_the_operator_is_laid_over_the_plugins(workshop: Workshop) -> None:
    source = "@operation\ndef settings():\n    return context().config\n"
    bundle = workshop.write(source, config={"colour": "red", "size": 1})
    options = workshop.config(plugin_config={"sample": {"colour": "blue"}})
    with SandboxHost.blocking(options) as host:
        assert host.load(bundle).call("settings") == {"colour": "blue", "size": 1}


# -- calls --------------------------------------------------------------------------------------


VALUES = [
    None,
    True,
    -(2**63),
    2**64 - 1,
    1.5,
    "text \U0001f600 \x00",
    b"\x00\xff" * 1_000,
    [],
    {},
    [1, [2, {"a": [None, {"b": b""}]}]],
    {"key": {"": 1}},
]


@pytest.fixture
def plugin(load: Load) -> Any:
    return load("""
        class Greeter(Model):
            def predict(self, rows, *, scale=1):
                return [row * scale for row in rows]

            @operation
            def extra(self):
                return "extra"

        greeter = Greeter()

        @operation("renamed")
        def original():
            return "renamed"

        @operation
        def fail(text):
            raise ValueError(text)

        @operation
        def give(kind):
            return {"set": {1}, "object": object(), "int key": {1: 2}, "big": 2 ** 70,
                    "large": b"x" * (9 << 20)}[kind]
    """)


def test_values_travel_both_ways(plugin: Any) -> None:
    assert [plugin.call("echo", value) for value in VALUES] == VALUES
    assert plugin.call("echo", (1, 2)) == [1, 2]


def test_kinds_names_and_keywords(plugin: Any) -> None:
    assert plugin.call("predict", [1, 2], scale=3) == [3, 6]
    assert plugin.call("extra") == "extra"
    assert plugin.call("renamed") == "renamed"
    assert {"predict", "extra", "renamed", "echo"} <= set(plugin.operations)
    assert not {"train", "original", "cleanup", "init_plugin"} & set(plugin.operations)


def test_unknown_operation_lists_the_known(plugin: Any) -> None:
    with pytest.raises(NoSuchOperationError, match="predict"):
        plugin.call("predictt")


@pytest.mark.parametrize("name", ["__init__", "os", "cleanup", "original", "greeter", "_x"])
def test_only_operations_can_be_called(plugin: Any, name: str) -> None:
    with pytest.raises(NoSuchOperationError):
        plugin.call(name)


def test_error_inside_carries_its_text(plugin: Any) -> None:
    with pytest.raises(OperationError, match="too bad") as caught:
        plugin.call("fail", "too bad")
    error = caught.value
    assert (error.type_name, error.plugin) == ("ValueError", "sample")
    assert "raise ValueError(text)" in error.traceback_text
    assert "in fail" in str(error)


def test_error_text_cannot_speak_to_the_terminal(plugin: Any) -> None:
    with pytest.raises(OperationError) as caught:
        plugin.call("fail", "\x1b[2J\r\nhost: all is well" + "x" * 100_000)
    assert "\x1b" not in str(caught.value) + caught.value.traceback_text
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 3_000


@pytest.mark.parametrize("kind", ["set", "object", "int key", "big"])
def test_result_that_cannot_be_carried(plugin: Any, kind: str) -> None:
    with pytest.raises(NotSerializableError, match="give"):
        plugin.call("give", kind)
    assert plugin.call("echo", 1) == 1


@pytest.mark.parametrize("value", [{1}, object(), {1: 2}, 2**70, {"a": {3: 4}}])
def test_argument_that_cannot_be_carried(plugin: Any, value: object) -> None:
    with pytest.raises(NotSerializableError, match="echo"):
        plugin.call("echo", value)
    assert plugin.call("echo", 1) == 1


def test_wrong_arguments(plugin: Any) -> None:
    with pytest.raises(OperationError, match="TypeError"):
        plugin.call("echo", 1, 2, 3)
    assert plugin.call("echo", 1) == 1
