"""A whole Airflow with an edge worker on one machine: for `make demo` and for the acceptance tests."""
