"""What a plugin's source reaches for, beside what its plugin.json asks for. Advice, no boundary.

A reviewer reads the findings; an operator may have them refuse a plugin. They admit none: whoever
writes a plugin can write one that no scan sees through, and the sandbox holds that one as well.

Nothing here parses a stranger's source. `plugin` is code that runs in the sandbox and does; what
it tells is a stranger's word too, which `sightings` checks and `scan` compares with the request.
"""
