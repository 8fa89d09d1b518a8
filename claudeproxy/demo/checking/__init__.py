"""What the Messages API refuses: :func:`.rules.refusal`, and the checks behind it."""
