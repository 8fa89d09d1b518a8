"""``claudemax install`` and what goes with it: the daemon as a service of the system.

launchd on macOS and systemd on Linux each have a module with the same functions
(:class:`~claudeproxy.command.service.manager.Manager`). What is to be done is made as a list of
steps first, so that it can be shown without being done, and undone where it fails.
"""
