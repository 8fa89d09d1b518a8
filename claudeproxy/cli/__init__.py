"""Speaking to one ``claude`` process. Facts relied upon stand in ``docs/cli-protocol.rst``,
each pinned by a test against the real CLI."""
