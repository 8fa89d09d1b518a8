"""What a user types: ``claudemax``, and what can be said behind it.

The libraries, and why these:

- ``click`` for the command line: no dependencies of its own, subcommands that are loaded by need
  (``--help`` need not import Twisted), prompts that refuse where there is no terminal.
- ``rich`` for what a terminal shows: it knows what is a terminal and what it can do, and turns
  what was shown into pictures for the docs.
- ``psutil`` for who holds a port and which other sessions there are, alike on Linux and macOS.

The daemon's own options stay with :class:`claudeproxy.tap.Options`: twistd wants that class, and
there is no second list of them.

Each subcommand is a module, named in :data:`claudeproxy.command.main.COMMANDS`.
"""
