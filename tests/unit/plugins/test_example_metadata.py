"""Each example says the same about itself in plugin.json and in get_metadata()."""

from __future__ import annotations

import ast
import datetime as dt
import json
from typing import Any

import pytest

from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.sign import sign
from sandbox_host.bundle.signature import PrivateKey
from tests.support.example_plugins import NAMES, PLUGINS


def metadata_in_code(name: str) -> Any:
    """Read the literal that get_metadata() returns; importing the model would need numpy."""
    tree = ast.parse((PLUGINS / name / "main.py").read_text())
    (function,) = (
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "get_metadata"
    )
    (answer,) = (node.value for node in function.body if isinstance(node, ast.Return))
    assert answer is not None
    return ast.literal_eval(answer)


@pytest.mark.parametrize("name", NAMES)
def test_code_and_manifest_agree(name: str) -> None:
    manifest = json.loads((PLUGINS / name / "plugin.json").read_text())
    said = metadata_in_code(name)
    assert said == {key: manifest[key] for key in said}
    assert {"name", "version", "description", "author", "dependencies", "capabilities"} == set(said)
    assert said["name"] == name


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_configuration_is_the_default(name: str) -> None:
    manifest = json.loads((PLUGINS / name / "plugin.json").read_text())
    defaults = {
        key: entry["default"]
        for key, entry in manifest.get("config_schema", {}).get("properties", {}).items()
    }
    assert manifest.get("config", {}) == defaults


@pytest.mark.parametrize("name", NAMES)
def test_the_working_tree_can_be_signed(name: str) -> None:
    contents = read_directory(PLUGINS / name)
    assert sign(contents, PrivateKey.from_seed(bytes(32)), dt.datetime.now(dt.UTC))
    assert contents.envelope is None
