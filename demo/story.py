"""The demo, step by step: a central site, a remote site, one DAG run, and what became of it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from demo import expected, show
from demo.airflow_api import UNFINISHED
from demo.cluster import Cluster
from demo.edge import EdgeWorker, create_token
from demo.otlp import Rotel, Store, why_rotel_cannot_run
from demo.postgres import Postgres
from demo.prometheus import Alertmanager, Prometheus, why_prometheus_cannot_run, wrong
from demo.spans import broken_chains, of_run, tree
from demo.telemetry import Record, latest, lines
from demo.wait import NotSeen
from edge_otel.telemetry.names import SERVICE_NAME, WORKER_NAME

WORKER = "site-1"


class Unfit(Exception):
    """This machine cannot run the demo as asked; the text says what to do."""


@dataclass(frozen=True)
class Wishes:
    """What the person asked for."""

    folder: Path
    port: int
    sqlite: bool


def require_free(port: int) -> None:
    """Do nothing when nobody listens on the loopback port.

    :raises Unfit: otherwise
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Unfit(
                f"Port {port} cannot be used ({error.strerror}). Stop the program that uses it, or choose another one: "
                f"make demo ARGS='--port {port + 1 if port < 65535 else 8080}'"
            ) from None


class Story:
    """The running demo; leaving the context ends every process."""

    def __init__(self, wishes: Wishes, steps: show.Steps) -> None:
        self._wishes = wishes
        self._steps = steps
        self._owned = ExitStack()
        self.left: list[str] = []

    def __enter__(self) -> Story:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._steps.say("Stopping everything.")
        finally:
            self._owned.close()

    def start(self) -> None:
        """Bring up both sites."""
        say, waiting = self._steps.say, self._steps.waiting
        endpoint, self._store = self._start_receiver()
        self.cluster = Cluster(
            self._wishes.folder,
            database=self._database(),
            port=self._wishes.port,
            dags=Path(__file__).parent / "dags",
            otlp=endpoint,
        )
        self._owned.callback(self._stop_cluster)
        say("Creating the tables: airflow db migrate.")
        self.cluster.migrate()
        say(f"Starting the API server on {self.cluster.url}, the scheduler and the DAG processor.")
        self.cluster.start_api_server()
        self.cluster.start_airflow("scheduler", "scheduler")
        self.cluster.start_airflow("dag-processor", "dag-processor")
        self.cluster.wait_for_api(waiting("the API server"))
        say(f"Creating a token: airflow edge token create --worker {WORKER}.")
        worker = EdgeWorker(self.cluster, WORKER, token=create_token(self.cluster, WORKER))
        say(f"Starting the edge worker {WORKER}, which knows only the address and its token.")
        worker.start()
        registered = f"{WORKER} to register"
        self.cluster.wait(lambda: worker.status().get("registered"), registered, 60, waiting(registered), blame=WORKER)
        say(f"{WORKER} is registered.")
        self._prometheus = self._start_prometheus()

    def _start_prometheus(self) -> Prometheus | None:
        reason = why_prometheus_cannot_run()
        if reason is not None:
            self._steps.say(f"No alerts: {reason}.")
            return None
        folder, logs = self._wishes.folder, self.cluster.logs
        alertmanager = Alertmanager(folder, logs)
        self._owned.callback(alertmanager.stop)
        prometheus = Prometheus(folder, logs, edge=f"127.0.0.1:{self.cluster.port}", alertmanager=alertmanager.address)
        self._owned.callback(prometheus.stop)
        self._steps.say(f"Prometheus with the rules is on {prometheus.url}, Alertmanager on {alertmanager.url}.")
        return prometheus

    def _start_receiver(self) -> tuple[str, Store]:
        store = Store()
        self._owned.callback(store.stop)
        reason = why_rotel_cannot_run()
        if reason is not None:
            self._steps.say(f"No OTLP collector: {reason}. The spans go to the demo's own small receiver.")
            return store.endpoint, store
        self._steps.say("Starting the OTLP collector rotel.")
        logs = self._wishes.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        rotel = Rotel(store, logs)
        self._owned.callback(rotel.stop)
        return rotel.endpoint, store

    def _database(self) -> str:
        if self._wishes.sqlite:
            return f"sqlite:///{self._wishes.folder / 'airflow.db'}"
        self._steps.say("Starting PostgreSQL.")
        server = Postgres()
        self._owned.callback(server.stop)
        return server.new_database()

    def _stop_cluster(self) -> None:
        self.left = self.cluster.stop()

    def run(self) -> list[str]:
        """Run the DAG, show what became of it, and return what was wrong."""
        api, say, waiting = self.cluster.api, self._steps.say, self._steps.waiting
        dag_id = expected.DAG_ID
        what = f"the DAG {dag_id} to be parsed"
        self.cluster.wait(lambda: api.dag_exists(dag_id), what, 120, waiting(what), "dag-processor")
        self.run_id = api.trigger(dag_id)
        say(f"Triggered {dag_id}: {self.run_id}.")
        self.cluster.wait(self._progress(), "the DAG run to end", 300, waiting("the DAG run"), WORKER)
        tasks = api.tasks(dag_id, self.run_id)
        show.title("Task instances")
        show.tasks(tasks)
        readings = api.log(dag_id, self.run_id, "inspect")
        show.title(f"Log of inspect through Airflow's log API: {len(readings)} lines")
        show.excerpt(readings)
        return [
            *expected.wrong_tasks(tasks, WORKER),
            *expected.wrong_log(readings),
            *self._traces(),
            *self._metrics(),
            *self._daemon_log(),
            *self._scrape(),
            *self._rules(),
        ]

    def _progress(self) -> Callable[[], bool]:
        told: dict[str, str | None] = {}

        def look() -> bool:
            states = self.cluster.api.states(expected.DAG_ID, self.run_id)
            for name, state in states.items():
                if state not in (told.get(name), None, "scheduled"):
                    self._steps.say(f"  {name}: {state}")
                    told[name] = state
            return self.cluster.api.run_state(expected.DAG_ID, self.run_id) not in UNFINISHED

        return look

    def _traces(self) -> list[str]:
        wrong = self._patiently(
            lambda: broken_chains(self._store.spans(), self.run_id, expected.TRIES), "the spans to arrive"
        )
        show.title("Trace of the DAG run, as the receiver got it")
        for line in tree(of_run(self._store.spans(), self.run_id)):
            print(f"  {line}")
        return wrong

    def _metrics(self) -> list[str]:
        def missing() -> list[str]:
            there = {metric for metric, _ in latest(self._store.points(), WORKER)}
            return [f"no reading of {metric} has arrived" for metric in expected.HOST_METRICS if metric not in there]

        wrong = self._patiently(missing, "the host's metrics")
        show.title(f"Metrics of {WORKER}, as the receiver got them through the Edge API")
        for line in lines(self._store.points(), WORKER, expected.HOST_METRICS):
            print(f"  {line}")
        return wrong

    def _daemon_log(self) -> list[str]:
        def found() -> list[Record]:
            traces = {span.trace_id for span in of_run(self._store.spans(), self.run_id)}
            by = {WORKER_NAME: WORKER, SERVICE_NAME: "edge-worker"}
            return [r for r in self._store.records() if by.items() <= r.resource.items() and r.trace_id in traces]

        wrong = self._patiently(lambda: [] if found() else ["no line of the daemon's log names the trace"], "its log")
        show.title(f"Log of the daemon {WORKER}, as the receiver got it: lines of this trace")
        show.excerpt([f"{record.severity:<8} {record.body}" for record in sorted(found(), key=lambda r: r.time)])
        return wrong

    def _scrape(self) -> list[str]:
        scraped = self.cluster.scrape()
        show.title(f"Scrape of {self.cluster.edge_url}/metrics: {len(scraped)} lines, some of them")
        for line in scraped:
            if line.startswith(expected.SCRAPED) and not line.endswith('"} 0'):
                print(f"  {line}")
        return [
            f"the scrape has no {name}" for name in expected.SCRAPED if not any(s.startswith(name) for s in scraped)
        ]

    def _rules(self) -> list[str]:
        prometheus = self._prometheus
        return [] if prometheus is None else self._patiently(lambda: list(wrong(prometheus)), "Prometheus to scrape")

    def _patiently(self, look: Callable[[], list[str]], what: str) -> list[str]:
        """Return what is wrong, after some time in which it may become right."""
        with suppress(NotSeen):
            self.cluster.wait(lambda: not look(), what, 20)
        return look()
