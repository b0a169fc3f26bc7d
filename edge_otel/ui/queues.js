// The queues: what waits, and who is there for it.
import { TextFilter, useAddress, ViewLink } from "./address.js";
import { query } from "./api.js";
import { Mark } from "./badge.js";
import { Bar } from "./charts.js";
import { usePolled } from "./live.js";
import { Fragment, h } from "./react.js";
import { Cell, Loading, pageOf, Pager, Table } from "./table.js";
import { count, duration } from "./text.js";

const COLUMNS = ["Queue", "Waiting", "Oldest", "Running", "Workers", "Slots used"].map((label) => ({ label }));

export const Queues = () => {
  const address = useAddress();
  const search = address.text("search");
  const path = `queues${query({ search, ...pageOf(address) })}`;
  const answer = usePolled(path);
  const page = answer.data;
  const none = search ? "No queue matches." : "There is no queue yet: no job waits, and no worker names one.";
  const columns = page?.teams ? [COLUMNS[0], { label: "Team" }, ...COLUMNS.slice(1)] : COLUMNS;
  return h(
    Fragment,
    null,
    h(
      "form",
      { className: "edge-filters", role: "search", "aria-label": "Filter queues", onSubmit: (event) => event.preventDefault() },
      h(TextFilter, { name: "search", label: "Name", address }),
    ),
    page?.total > 0 &&
      h(
        Table,
        { caption: "Queues", columns, busy: answer.path !== path },
        page.queues.map((row) => h(Line, { key: JSON.stringify([row.team, row.queue]), row, teams: page.teams })),
      ),
    page?.total === 0 && h("p", { className: "edge-empty" }, none),
    page && h(Pager, { address, total: page.total, noun: "queue", none, settled: answer.path === path }),
    answer.refusal && h("p", { role: "alert", className: "edge-alert" }, answer.refusal.message),
    !page && !answer.refusal && h(Loading),
  );
};

const isForsaken = (row) => row.queued > 0 && row.workers === 0;

const Line = ({ row, teams }) =>
  h(
    "tr",
    { role: "row" },
    h("th", { role: "rowheader", scope: "row", className: "edge-name" }, row.queue),
    teams && h(Cell, { label: "Team" }, row.team ?? "–"),
    h(Cell, { label: "Waiting" }, h(Jobs, { row, teams, states: ["queued"], number: row.queued }), isForsaken(row) && [" ", h(Mark, { key: "mark", tone: "bad" }, "no worker")]),
    h(Cell, { label: "Oldest" }, row.oldest_age === null ? "–" : duration(row.oldest_age)),
    h(Cell, { label: "Running" }, h(Jobs, { row, teams, states: ["assigned", "running"], number: row.assigned + row.running })),
    h(Cell, { label: "Workers" }, h(ViewLink, { to: { queue: row.queue, ...(row.team ? { team: row.team } : {}) } }, count(row.workers, "worker"))),
    h(Cell, { label: "Slots used", className: "edge-figures" }, `${row.slots_used} / ${row.slots}`, h(Bar, { value: row.slots_used, most: row.slots, tone: "plain" })),
  );

const Jobs = ({ row, teams, states, number }) => {
  if (number === 0) return h("span", { className: "edge-muted" }, "0");
  const ofTeam = row.team ? { team: row.team } : teams ? { teamless: "true" } : {};
  return h(ViewLink, { to: { view: "jobs", queue_is: row.queue, state: states, ...ofTeam } }, count(number, "job"));
};
