"""``claudemax connect``: sets up the clients, each in its own file.

- :mod:`.clients`: which there are; :mod:`.agents`, :mod:`.editors` and :mod:`.tools` know what each
  has to be told, and where.
- :mod:`.json5_text`, :mod:`.yaml_text`, :mod:`.toml_text`: change values in a text and nothing
  else; what the first two share is :mod:`.tree`.
- :mod:`.files`: the backup, the write, the way back. :mod:`.running`: what the daemon says.
"""
