from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.child.interface import LoadError
from plugin_sdk.child.loader import LoadedPlugin, load
from plugin_sdk.context import context
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.limits import MAX_METADATA_BYTES
from tests.support.child_session import HOOKS, order_for, write_package


def load_files(tmp_path: Path, files: dict[str, str], **changes: Any) -> LoadedPlugin:
    published: list[tuple[str, bytes]] = changes.pop("published", [])
    package = write_package(tmp_path, files)
    return load(order_for(package, **changes), lambda *event: published.append(event))


def refused(tmp_path: Path, files: dict[str, str], **changes: Any) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load_files(tmp_path, files, **changes)
    return caught.value


def test_a_plugin_of_plain_functions_in_one_file(tmp_path: Path) -> None:
    plugin = load_files(
        tmp_path,
        {
            "__init__.py": HOOKS
            + """
from plugin_sdk import operation

@operation
def double(x):
    return 2 * x
"""
        },
    )
    assert plugin.interface.operations["double"](4) == 8
    assert plugin.ready_payload() == {
        "metadata": {"name": "sample"},
        "operations": [
            {"name": "double", "kind": "operation"},
            {"name": "get_metadata", "kind": "hook"},
        ],
        "handles": [],
        "kind": None,
        "hooks": {"cleanup": False, "health_check": False},
        "arena": False,
        "warnings": [],
    }


def test_a_plugin_in_main_with_modules_of_its_own(tmp_path: Path) -> None:
    plugin = load_files(
        tmp_path,
        {
            "__init__.py": "'''A plugin.'''",
            "main.py": HOOKS
            + """
from plugin_sdk import operation
from . import numbers_of
from .deep.inner import TEN
from sample.numbers_of import THREE

@operation
def thirteen():
    return numbers_of.THREE + TEN
""",
            "numbers_of.py": "THREE = 3",
            "deep/__init__.py": "",
            "deep/inner.py": "TEN = 10",
        },
    )
    assert plugin.interface.operations["thirteen"]() == 13
    assert sys.modules["sample"].__path__ == [str(tmp_path / "sample")]


def test_it_is_imported_from_the_private_copy_whatever_else_has_its_name(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    (environment / "sample").mkdir(parents=True)
    (environment / "sample" / "__init__.py").write_text("raise SystemExit", encoding="utf-8")
    (environment / "helper_in_environment.py").write_text("VALUE = 5", encoding="utf-8")
    files = {"__init__.py": HOOKS + "import helper_in_environment"}
    load_files(tmp_path, files, sys_path=[str(environment)])
    assert sys.modules["sample"].__file__ == str(tmp_path / "sample" / "__init__.py")
    assert str(tmp_path / "sample") not in sys.path
    assert sys.path[-1] == str(environment)


def test_the_context_is_there_at_import_and_in_init(tmp_path: Path) -> None:
    published: list[tuple[str, bytes]] = []
    load_files(
        tmp_path,
        {
            "__init__.py": """
from plugin_sdk import context
SEED = context().config["seed"]
context().publish("data_processed", "importing")

def init_plugin():
    context().publish("data_processed", [SEED, context().name, context().data_dir])
    return True

def get_metadata():
    return {}
"""
        },
        config={"seed": 7},
        publish=["data_processed"],
        data_dir="/data",
        published=published,
    )
    assert [(event, unpack(data)) for event, data in published] == [
        ("data_processed", "importing"),
        ("data_processed", [7, "sample", "/data"]),
    ]
    assert context().config == {"seed": 7}


@pytest.mark.parametrize(
    ("source", "type_name", "told"),
    [
        ("1 / 0", "ZeroDivisionError", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "SystemExit", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("def broken(:", "SyntaxError", "SyntaxError: invalid syntax"),
        ("import no_such_module.part", "ModuleNotFoundError", "have no_such_module installed"),
        ("import helpers", "ModuleNotFoundError", "write `from . import helpers`"),
        ("from . import missing", "ImportError", "cannot import name 'missing'"),
        ("from .missing import x", "ModuleNotFoundError", "There is no missing.py in the plugin"),
    ],
)
def test_an_import_that_fails(tmp_path: Path, source: str, type_name: str, told: str) -> None:
    files = {"__init__.py": "", "main.py": source, "helpers.py": ""}
    error = refused(tmp_path, files)
    assert error.code == "import"
    assert type(error.cause).__name__ == type_name
    assert str(error).startswith("importing sample failed: ")
    assert told in str(error)
    assert "sample.main" not in sys.modules


@pytest.mark.parametrize("identity", ["json", "plugin_sdk", "msgpack", "sys", "not-a-name"])
def test_names_that_stand_for_something_else_are_refused(tmp_path: Path, identity: str) -> None:
    package = write_package(tmp_path, {"__init__.py": HOOKS}, identity)
    with pytest.raises(LoadError, match=f'cannot be imported as "{identity}"'):
        load(order_for(package), lambda *event: None)


@pytest.mark.parametrize(
    ("returned", "code", "told"),
    [
        ("False", "init", "returned False: the plugin refuses to start"),
        ("None", "interface", "returned None; it must return True"),
        ("1", "interface", "returned a value of type int; it must return True"),
        ("1 / 0", "init", "init_plugin() raised ZeroDivisionError: division by zero"),
        ("__import__('sys').exit(3)", "init", "init_plugin() raised SystemExit: 3"),
    ],
)
def test_what_init_plugin_may_return(tmp_path: Path, returned: str, code: str, told: str) -> None:
    files = {
        "__init__.py": f"""
def init_plugin():
    return {returned}

def get_metadata():
    return {{}}
"""
    }
    error = refused(tmp_path, files)
    assert error.code == code
    assert told in str(error)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("None", "returned None; it must return a dict"),
        ("['name']", "returned a value of type list"),
        ("{'name': object()}", "cannot be sent: cannot carry a object"),
        ("{1: 2}", "keys must be str"),
        (f"{{'name': 'x' * {MAX_METADATA_BYTES}}}", f"at most {MAX_METADATA_BYTES}"),
        ("{}['name']", "raised KeyError: 'name'"),
    ],
)
def test_what_get_metadata_may_return(tmp_path: Path, returned: str, told: str) -> None:
    files = {
        "__init__.py": f"""
def init_plugin():
    return True

def get_metadata():
    return {returned}
"""
    }
    error = refused(tmp_path, files)
    assert error.code == "metadata"
    assert told in str(error)


def test_metadata_travels_as_it_is(tmp_path: Path) -> None:
    metadata = {"name": "sample", "capabilities": ["ai_model"], "nested": {"a": [1, None]}}
    files = {"__init__.py": f"init_plugin = lambda: True\nget_metadata = lambda: {metadata!r}"}
    plugin = load_files(tmp_path, files)
    assert unpack(pack(plugin.ready_payload()))["metadata"] == metadata
