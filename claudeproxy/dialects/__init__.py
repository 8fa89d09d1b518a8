"""What clients speak. Each dialect is pure: a body becomes a ``Request``, events become chunks."""
