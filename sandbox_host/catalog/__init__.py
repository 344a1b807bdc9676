"""Which plugins there are, and the manifest in a README that says so.

What is discovered here is listed, not trusted. Whoever loads a plugin reads it again through the
bundle room, with its signature. File names and plugin.json are hostile input.
"""

from __future__ import annotations
