"""The page at ``/``: what the daemon does, for its owner to look at. It shows lengths and never
content, and changes nothing."""
