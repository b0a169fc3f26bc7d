"""The Edge API: what workers at remote sites talk to."""
