"""The tables and every query on them: the only SQL."""
