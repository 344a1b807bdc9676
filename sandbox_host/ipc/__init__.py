"""The channel to one plugin: a thin shell of I/O around `plugin_sdk.wire.connection.Connection`.

Bytes from the plugin come in, messages go out to whoever asked. There is no reader thread: the
caller that holds the read lock reads for the others (`channel`), and a keeper reads while nobody
waits. `calls` is what a caller holds while it waits.
"""
