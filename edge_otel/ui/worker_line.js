// One worker as a row, or on a phone as a card.
import { ViewLink } from "./address.js";
import { Badge, Mark } from "./badge.js";
import { Bar, Load } from "./charts.js";
import { DEEDS } from "./deeds.js";
import { Menu } from "./dialog.js";
import { useLive } from "./live.js";
import { h } from "./react.js";
import { Cell } from "./table.js";
import { clock, count, duration, origin, queuesOf, standing } from "./text.js";

export const SKEWED = 2;

export const COLUMNS = [
  { label: "Worker", sort: "name" },
  { label: "State", sort: "state" },
  { label: "Heartbeat", sort: "heartbeat", first: "most" },
  { label: "Queues" },
  { label: "Jobs, slots", sort: "jobs", first: "most" },
  { label: "CPU", sort: "cpu", first: "most" },
  { label: "Memory", sort: "memory", first: "most" },
  { label: "Disk", sort: "disk", first: "most" },
  { label: "Version, clock" },
];

export const WorkerLine = ({ worker, now, picks, begin }) => {
  const { context } = useLive();
  const pick = (event) => picks.toggle(worker.name, event.target.checked, event.nativeEvent.shiftKey);
  return h(
    "tr",
    { role: "row", className: picks.has(worker.name) ? "edge-selected" : undefined },
    context.acts &&
      h(
        "td",
        { role: "cell", className: "edge-pick" },
        h("input", { type: "checkbox", "aria-label": `Select ${worker.name}`, checked: picks.has(worker.name), onChange: pick }),
      ),
    h(
      "th",
      { role: "rowheader", scope: "row", className: "edge-name" },
      h(ViewLink, { to: { worker: worker.name } }, worker.name),
      worker.team && h("span", { className: "edge-muted" }, `team ${worker.team}`),
    ),
    h(Cell, { label: "State" }, h(StateOf, { worker, now })),
    h(Cell, { label: "Heartbeat" }, h(Heartbeat, { worker })),
    h(Cell, { label: "Queues", className: "edge-queues" }, queuesOf(worker.queues)),
    h(Cell, { label: "Jobs, slots", className: "edge-figures" }, h(Slots, { worker })),
    h(Cell, { label: "CPU" }, h(Load, { value: worker.cpu_percent, history: worker.load_history.cpu, label: "CPU" })),
    h(Cell, { label: "Memory" }, h(Load, { value: worker.memory_percent, history: worker.load_history.memory, label: "Memory" })),
    h(Cell, { label: "Disk" }, h(Load, { value: worker.disk_percent, label: "Disk" })),
    h(Cell, { label: "Version, clock", className: "edge-figures" }, h(Versions, { worker, context })),
    context.acts &&
      h(
        Cell,
        { className: "edge-row-menu" },
        h(Menu, { label: `Actions for ${worker.name}`, items: deedsFor(worker, begin), className: "edge-button edge-quiet" }, "⋯"),
      ),
  );
};

export const deedsFor = (worker, begin) =>
  DEEDS.filter((deed) => deed.fits(worker)).map((deed) => ({ text: `${deed.text} …`, pick: (opener) => begin(deed, opener) }));

export const StateOf = ({ worker, now }) =>
  h(
    "div",
    null,
    h(Badge, { state: worker.state }),
    " ",
    worker.health && worker.health !== "Info" && h(Mark, { tone: worker.health === "Error" ? "bad" : "asked", title: "The host's health, as the worker says" }, worker.health),
    h("span", { className: "edge-muted", title: `since ${clock(worker.state_since)}` }, standing(worker, now)),
    worker.maintenance_origin && h("span", { className: "edge-comment" }, `“${worker.maintenance_comment ?? "no comment"}” ${origin(worker.maintenance_origin)}`),
  );

export const Heartbeat = ({ worker }) =>
  h(
    "span",
    { title: clock(worker.last_heartbeat), className: worker.late ? "edge-late" : "edge-muted-not" },
    `${duration(worker.heartbeat_age)} ago`,
    worker.late && [" ", h(Mark, { key: "late", tone: "asked", title: `one was due every ${duration(worker.heartbeat_interval)}` }, "late")],
    worker.transport === "polling" && h("span", { className: "edge-muted", title: "by HTTP requests instead of one WebSocket" }, "polling"),
  );

export const Slots = ({ worker }) =>
  h(
    "div",
    null,
    h("span", null, `${worker.slots_used} / ${worker.slots ?? "?"} slots`),
    worker.slots !== null && h(Bar, { value: worker.slots_used, most: worker.slots, tone: "plain" }),
    worker.jobs > 0 && h(ViewLink, { to: { view: "jobs", worker_is: worker.name } }, count(worker.jobs, "job")),
  );

export const Versions = ({ worker, context }) =>
  h(
    "div",
    null,
    h(Version, { mine: worker.edge_version, server: context.version, of: "edge" }),
    h(Version, { mine: worker.airflow_version, server: context.airflow_version, of: "Airflow" }),
    h(Skew, { seconds: worker.clock_skew }),
  );

const Version = ({ mine, server, of }) =>
  mine &&
  h(
    "span",
    { className: "edge-line" },
    h("span", { className: "edge-muted" }, `${of} ${mine}`),
    mine !== server && [" ", h(Mark, { key: "differs", tone: "asked", title: `the server has ${server}` }, "differs")],
  );

export const Skew = ({ seconds }) =>
  seconds !== null &&
  Math.abs(seconds) > SKEWED &&
  h("span", { className: "edge-line" }, h(Mark, { tone: "bad", title: "against the server's clock" }, `clock ${seconds > 0 ? "ahead" : "behind"} ${duration(Math.abs(seconds))}`));
