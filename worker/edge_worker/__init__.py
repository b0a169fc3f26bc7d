"""The edge worker: a daemon that runs Airflow tasks at a remote site and never imports Airflow itself."""
