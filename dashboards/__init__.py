"""Grafana dashboards and Prometheus rules as code, written by ``python -m dashboards.build``."""
