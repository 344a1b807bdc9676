"""The modules of a plugin of the host's own, which reads strangers' sources in the sandbox.

The host imports none of it. All of it imports the standard library and each other,
nothing else, because it runs as a plugin under another name. Nothing here calls itself without a
bound, whatever the source nests.
"""
