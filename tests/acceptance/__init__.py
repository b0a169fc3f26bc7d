"""Real Airflow, real processes, killed for real."""
