"""What the daemon tells monitoring: metrics for Prometheus, spans for OpenTelemetry. Never a
word of a conversation."""
