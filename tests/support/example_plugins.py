"""Modules of the example plugins, imported in process: for the parts that need no sandbox."""

from __future__ import annotations

import importlib
import pathlib
import sys
from types import ModuleType

PLUGINS = pathlib.Path(__file__).parents[2] / "plugins"
NAMES = ("weather_source", "weather_features", "weather_model")


def import_example(module: str) -> ModuleType:
    """Import a module such as ``weather_source.store`` without leaving byte code beside it.

    A ``__pycache__`` in a plugin's directory would keep the plugin from being signed.
    """
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(PLUGINS))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(PLUGINS))
        sys.dont_write_bytecode = writes
