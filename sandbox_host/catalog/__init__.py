"""The plugin directory: what is in it, what changes there, and the README that says so.

What is discovered and watched here is told, not trusted. Whoever loads a plugin reads it again
through the bundle room, with its signature. File names, plugin.json and whatever else happens in
the directory are hostile input; an operator's commands put plugins there and take them away.
"""

from __future__ import annotations
