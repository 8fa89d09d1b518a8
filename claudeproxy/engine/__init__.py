"""Which process serves which turn, and everything a request asks that no process does by itself."""
