"""What makes several nodes one: each a daemon of its own, with a login of the same person."""
