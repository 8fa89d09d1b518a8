"""Whether this CLI still does what the daemon relies on: the real one, in front of the stand-in
Messages API, with no login and no quota.

The facts are in :mod:`.facts`; :func:`~claudeproxy.selftest.run.run` tries them all.
"""
