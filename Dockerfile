# Airflow with edge-otel, for compose.observability.yaml: the same image centrally and at the site, where the daemon
# needs an Airflow for the tasks. The versions are those that the tests run with.
FROM apache/airflow:slim-3.3.2-python3.11

COPY --chown=airflow:0 . /opt/edge-otel
RUN pip install --no-cache-dir --constraint /opt/edge-otel/constraints.txt '/opt/edge-otel[server]' asyncpg psycopg2-binary

# A new volume takes the owner of the folder that it covers.
USER root
RUN install --directory --owner=airflow --group=root --mode=0700 /var/lib/edge-worker /run/edge-token
USER airflow

# The image's own entry point takes every command for one of Airflow's.
ENTRYPOINT ["/usr/bin/dumb-init", "--"]
