"""edge-otel: run Airflow tasks on machines outside the central network, and watch their whole life."""

__version__ = "0.1.0"
