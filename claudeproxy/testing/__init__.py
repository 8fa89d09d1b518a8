"""A double of the CLI for tests of embedded daemons: it costs nothing and misbehaves on order.

::

    claude = fake_cli(directory)                        # answers "You said: ..." at once
    claude = fake_cli(directory, deltas=200, pause=0.01)  # streams at a pace
    claude = fake_cli(directory, middle="exit")         # dies in mid-answer
    Settings(claude=claude, ...)

Calling :func:`fake_cli` again rewrites the plan, which every process reads when it starts and
with every line of stdin. An order in the last user text (``[[middle exit]]``) holds for that turn.

A fault is a *point* in the life of the process and what happens there. The points:

============ ===================================================================================
``start``    before it reads anything
``ready``    asked for its models, before it answers
``warm``     after that
``setup``    at ``initialize``, before its response
``servers``  at ``mcp_set_servers``, before its response
``flags``    at ``apply_flag_settings``
``rewind``   at ``rewind_conversation``, before its response
``history``  at a line of the history, before it is completed
``question`` asked for an answer, before it sends a request upstream
``asked``    after that request, before the answer begins
``then``     as ``question``, but for the next turn
``middle``   after its first delta
``stop``     after its last block, before the stop reason
``result``   after ``message_stop``
``kept``     after ``result``
``parked``   after ``tools/call``
``closed``   when stdin is closed, which usually makes it exit
============ ===================================================================================

What can happen: the methods of :class:`claudeproxy.testing._program.Faults`. An argument follows
after a space (``sleep 2``).

Other entries: ``version`` (the text ``--version`` prints), ``logged_in``, ``answer`` (the text),
``deltas`` (their number), ``size`` (characters of each after the first), ``pause`` (seconds
between two, in which it also hears a rewind), ``cut`` (bytes per write), ``reason`` (stop reason),
``error`` (status of an error in place of the answer), ``rewinds`` (``unknown``: it knows no such
request; ``partly``: something is left; anything but ``well``: the reason it refuses with), and in a
text ``[[call NAME {json}]]``. ``journal`` beside the executable has a line for each ``start``,
``turn``, ``rewind`` and ``went on`` (what would be a request of its own).
"""

from .double import fake_cli, journal
from .transcripts import MODELS

__all__ = ["MODELS", "fake_cli", "journal"]
