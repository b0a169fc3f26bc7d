"""Which worker gets which job: pure."""
