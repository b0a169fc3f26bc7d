"""The panels of a worker's host: CPU, memory, disk, network, and what its jobs use of them."""

from __future__ import annotations

from dashboards.panels import MANY, graph, query
from dashboards.prometheus import label, latest, rate
from dashboards.sdk import timeseries
from dashboards.variables import ONE, OTLP_WORKER
from edge_otel.telemetry import names

_DEVICE, _DIRECTION = label(names.DEVICE), label(names.DISK_DIRECTION)
_INTERFACE, _WAY = label(names.INTERFACE), label(names.NETWORK_DIRECTION)
_QUEUE = label(names.QUEUE)


def panels() -> list[timeseries.Panel]:
    """Return them."""
    return [used(), cpu(), load(), memory(), disk(), disk_io(), network(), job_cpu(), job_memory()]


def used() -> timeseries.Panel:
    """Return how full the host is."""
    about = "CPU, memory, and disk of the state folder in use, as its heartbeats tell. They need no collector."
    full = ((names.WORKER_CPU, "CPU"), (names.WORKER_MEMORY, "memory"), (names.WORKER_DISK, "disk"))
    queries = [query(latest(metric, **ONE), name) for metric, name in full]
    return graph("Host in use", about, "percentunit", *queries).min(0).max(1)


def cpu() -> timeseries.Panel:
    """Return what the CPUs do."""
    about = "Share of the CPUs' time by what they did; idle is left out."
    mode = label(names.CPU_MODE)
    by_mode = latest(names.CPU_UTILIZATION, mode, **OTLP_WORKER, **{mode: "!=idle"})
    return graph("CPU by mode", about, "percentunit", query(by_mode, f"{{{{{mode}}}}}"), stacked=True)


def load() -> timeseries.Panel:
    """Return the load."""
    about = "Load over one minute, as heartbeats tell it and, with a collector, as the worker's own metrics do."
    return graph(
        "Load",
        about,
        MANY,
        query(latest(names.WORKER_LOAD, **ONE), "1 min, heartbeats"),
        query(latest(names.LOAD_1, **OTLP_WORKER), "1 min"),
        query(latest(names.LOAD_5, **OTLP_WORKER), "5 min"),
        query(latest(names.CPU_COUNT, **OTLP_WORKER), "CPUs"),
    )


def memory() -> timeseries.Panel:
    """Return the memory by what it is."""
    about = "Memory by state, and swap in use."
    state, paging = label(names.MEMORY_STATE), label(names.PAGING_STATE)
    swap = latest(names.SWAP_USAGE, **OTLP_WORKER, **{paging: "=used"})
    by_state = latest(names.MEMORY_USAGE, state, **OTLP_WORKER)
    queries = query(by_state, f"{{{{{state}}}}}"), query(swap, "swap used")
    return graph("Memory", about, "bytes", *queries, stacked=True)


def disk() -> timeseries.Panel:
    """Return the space on the state folder's file system."""
    about = "Space on the file system of the state folder, where logs and telemetry wait for the link."
    state, mount = label(names.FILESYSTEM_STATE), label(names.MOUNTPOINT)
    space = latest(names.FILESYSTEM_USAGE, state, mount, **OTLP_WORKER)
    return graph("Disk space", about, "bytes", query(space, f"{{{{{mount}}}}} {{{{{state}}}}}"), stacked=True)


def disk_io() -> timeseries.Panel:
    """Return what disks read and write."""
    moved = rate(names.DISK_IO, _DEVICE, _DIRECTION, **OTLP_WORKER)
    return _flow("Disk", "Bytes read from and written to disks.", moved, _DEVICE, _DIRECTION)


def network() -> timeseries.Panel:
    """Return what the network carries."""
    moved = rate(names.NETWORK_IO, _INTERFACE, _WAY, **OTLP_WORKER)
    return _flow("Network", "Bytes received and sent, without loopback.", moved, _INTERFACE, _WAY)


def job_cpu() -> timeseries.Panel:
    """Return the CPU that jobs use."""
    about = "CPUs that the processes of jobs keep busy, by queue."
    return graph("CPU of jobs", about, MANY, query(rate(names.JOBS_CPU, _QUEUE, **OTLP_WORKER), f"{{{{{_QUEUE}}}}}"))


def job_memory() -> timeseries.Panel:
    """Return the memory that jobs hold."""
    about = "Memory that the processes of jobs hold, by queue."
    held = latest(names.JOBS_MEMORY, _QUEUE, **OTLP_WORKER)
    return graph("Memory of jobs", about, "bytes", query(held, f"{{{{{_QUEUE}}}}}"))


def _flow(title: str, about: str, expr: str, what: str, direction: str) -> timeseries.Panel:
    return graph(title, about, "Bps", query(expr, f"{{{{{what}}}}} {{{{{direction}}}}}"))
