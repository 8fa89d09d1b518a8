"""``claudemax try``: a few turns on the real login, to learn what only a subscription can tell.

- :mod:`.questions`: what is asked, and what makes the answer a yes. :mod:`.asker`: sends it to a
  daemon, and stops where a turn was paid for. :mod:`.trial`: asks them all.
- :mod:`..own_daemon`: the daemon for the time of the trial, where none runs.
- :mod:`.report`: what may be told to others. :mod:`.command`: asks before it
  sends; :mod:`.show`: what its user sees.
"""
