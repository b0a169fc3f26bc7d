"""Names, trace context and exporters."""
