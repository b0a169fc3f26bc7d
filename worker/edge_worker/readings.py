"""What the system tells of the host and of the daemon, as readings of the catalogue's metrics. Blocking."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from edge_otel.telemetry import names

log = logging.getLogger(__name__)

Reading = tuple[float, dict[str, str]]
Readings = dict[names.Metric, list[Reading]]

MOST = 16
"""Disks, and network interfaces: whoever has more sees the first by name."""

_MODES = {
    "user": ("user",),
    "nice": ("nice",),
    "system": ("system",),
    "idle": ("idle",),
    "iowait": ("iowait",),
    "interrupt": ("irq", "softirq", "interrupt"),
    "steal": ("steal",),
}
"""psutil's names of what CPUs do, by those of the conventions."""

_NOT_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")
"""Block devices that hold nothing of their own, or what others hold."""

_NOT_INTERFACES = ("lo", "veth", "Loopback")


class HostReadings:
    """Reads them. Each source is guarded: one that fails is left out, and complained of once."""

    def __init__(self, folder: Path) -> None:
        """``folder``: of whose file system to tell."""
        self._folder = folder
        self._daemon = psutil.Process()
        self._broken: set[str] = set()
        self._cpu = _cpu_times()
        self._place: dict[str, str] | None = None

    def read(self) -> Readings:
        """Return what can be read now."""
        found: Readings = {}
        sources: tuple[Callable[[], Readings], ...] = (
            self._cpus,
            _memory,
            _swap,
            self._filesystem,
            _disks,
            _network,
            _age,
            _load,
            self._own,
            self._own_files,
        )
        for source in sources:
            try:
                found |= source()
            except Exception as error:  # noqa: BLE001 whatever an odd system makes psutil raise
                self._complain(source.__name__.strip("_"), error)
        return found

    def _complain(self, source: str, error: Exception) -> None:
        if source not in self._broken:
            self._broken.add(source)
            log.warning("metrics of %s cannot be read: %s: %s", source, type(error).__name__, error)

    def _cpus(self) -> Readings:
        before, now = self._cpu, _cpu_times()
        # The kernel's times may go back by a little.
        self._cpu = now = {mode: max(seconds, before.get(mode, 0.0)) for mode, seconds in now.items()}
        spent = {mode: seconds - before.get(mode, 0.0) for mode, seconds in now.items()}
        total = sum(spent.values())
        found: Readings = {
            names.CPU_TIME: [(seconds, {names.CPU_MODE: mode}) for mode, seconds in now.items()],
            names.CPU_COUNT: [(psutil.cpu_count() or 1, {})],
        }
        if total > 0:
            found[names.CPU_UTILIZATION] = [(seconds / total, {names.CPU_MODE: m}) for m, seconds in spent.items()]
        return found

    def _filesystem(self) -> Readings:
        if self._place is None:
            self._place = _place_of(self._folder)
        space = psutil.disk_usage(str(self._folder))
        states = {"used": space.used, "free": space.free, "reserved": max(0, space.total - space.used - space.free)}
        return {
            names.FILESYSTEM_USAGE: [(size, {**self._place, names.FILESYSTEM_STATE: s}) for s, size in states.items()],
            names.FILESYSTEM_LIMIT: [(space.total, self._place)],
        }

    def _own(self) -> Readings:
        with self._daemon.oneshot():
            times = self._daemon.cpu_times()
            return {
                names.DAEMON_CPU: [
                    (times.user, {names.CPU_MODE: "user"}),
                    (times.system, {names.CPU_MODE: "system"}),
                ],
                names.DAEMON_MEMORY: [(self._daemon.memory_info().rss, {})],
                names.DAEMON_THREADS: [(self._daemon.num_threads(), {})],
            }

    def _own_files(self) -> Readings:
        return {names.DAEMON_FILES: [(self._daemon.num_fds(), {})]} if hasattr(self._daemon, "num_fds") else {}


def _cpu_times() -> dict[str, float]:
    times = psutil.cpu_times()
    told = {mode: [getattr(times, name) for name in of if hasattr(times, name)] for mode, of in _MODES.items()}
    return {mode: sum(seconds) for mode, seconds in told.items() if seconds}


def _memory() -> Readings:
    memory = psutil.virtual_memory()
    states = {name: size for name in ("free", "buffers", "cached") if (size := getattr(memory, name, None)) is not None}
    states["used"] = memory.total - sum(states.values())
    return {
        names.MEMORY_USAGE: [(size, {names.MEMORY_STATE: state}) for state, size in states.items()],
        names.MEMORY_UTILIZATION: [(size / memory.total, {names.MEMORY_STATE: s}) for s, size in states.items()],
        names.MEMORY_LIMIT: [(memory.total, {})],
    }


def _swap() -> Readings:
    swap = psutil.swap_memory()
    return {names.SWAP_USAGE: [(swap.used, {names.PAGING_STATE: "used"}), (swap.free, {names.PAGING_STATE: "free"})]}


def _disks() -> Readings:
    every = psutil.disk_io_counters(perdisk=True) or {}
    whole = [name for name in sorted(every) if _is_disk(name)][:MOST]
    return {
        names.DISK_IO: [
            (size, {names.DEVICE: name, names.DISK_DIRECTION: direction})
            for name in whole
            for direction, size in (("read", every[name].read_bytes), ("write", every[name].write_bytes))
        ]
    }


def _is_disk(name: str) -> bool:
    """Return whether this is a whole disk: Linux tells of its partitions, too, which have no entry of their own."""
    return not sys.platform.startswith("linux") or (
        not name.startswith(_NOT_DISKS) and Path("/sys/block", name.replace("/", "!")).exists()
    )


def _network() -> Readings:
    every = psutil.net_io_counters(pernic=True)
    real = [name for name in sorted(every) if not name.startswith(_NOT_INTERFACES)][:MOST]
    return {
        names.NETWORK_IO: [
            (size, {names.INTERFACE: name, names.NETWORK_DIRECTION: direction})
            for name in real
            for direction, size in (("receive", every[name].bytes_recv), ("transmit", every[name].bytes_sent))
        ]
    }


def _age() -> Readings:
    return {names.UPTIME: [(time.time() - psutil.boot_time(), {})]}


def _load() -> Readings:
    if not hasattr(os, "getloadavg"):
        return {}
    one, five, _ = os.getloadavg()
    return {names.LOAD_1: [(one, {})], names.LOAD_5: [(five, {})]}


def _place_of(folder: Path) -> dict[str, str]:
    """Return device and mount point of a folder."""
    mount = folder.resolve()
    while not os.path.ismount(mount):
        mount = mount.parent
    device = next((p.device for p in psutil.disk_partitions(all=True) if p.mountpoint == str(mount)), "unknown")
    return {names.DEVICE: device, names.MOUNTPOINT: str(mount)}
