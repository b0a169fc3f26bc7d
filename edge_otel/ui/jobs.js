// The jobs: filtered pages, with links to the task, its log, its trace and its worker.
import { StateChips, TextFilter, useAddress, ViewLink } from "./address.js";
import { query } from "./api.js";
import { Badge, JOB_STATES } from "./badge.js";
import { useLive, usePolled } from "./live.js";
import { Fragment, h, Link } from "./react.js";
import { Cell, Loading, Moment, pageOf, Pager, Table } from "./table.js";
import { duration, secondsBetween } from "./text.js";

const PARTS = { dag_id: "DAG", task_id: "Task", run_id: "Run", queue: "Queue", worker: "Worker" };
// What links to this view ask for: whole names, and the team of a queue.
const WHOLE = { queue_is: "queue", worker_is: "worker", team: "team", teamless: "team" };
const COLUMNS = ["Task", "State", "Queue", "Worker", "Queued", "Waited", "Ran", "Links"].map((label) => ({ label }));
const NONE = "No job matches. Finished ones are here until they are purged.";

export const Jobs = () => {
  const address = useAddress();
  const parts = Object.fromEntries(Object.keys(PARTS).map((name) => [name, address.text(name)]));
  const whole = Object.fromEntries(Object.keys(WHOLE).map((name) => [name, address.text(name)]));
  const path = `jobs${query({ ...parts, ...whole, state: address.all("state"), ...pageOf(address) })}`;
  const answer = usePolled(path);
  const page = answer.data;
  return h(
    Fragment,
    null,
    h(
      "form",
      { className: "edge-filters", role: "search", "aria-label": "Filter jobs", onSubmit: (event) => event.preventDefault() },
      Object.entries(PARTS).map(([name, label]) => h(TextFilter, { key: name, name, label, address })),
      h(StateChips, { address, states: JOB_STATES, counts: page?.states ?? {}, label: "States" }, (state) => h(Badge, { state })),
      Object.keys(WHOLE)
        .filter((name) => whole[name])
        .map((name) =>
          h(
            "button",
            { key: name, type: "button", className: "edge-button", onClick: () => address.change({ [name]: "" }) },
            `${name === "teamless" ? "no team" : `${WHOLE[name]} ${whole[name]}`} ✕`,
            h("span", { className: "edge-unseen" }, ` any ${WHOLE[name]}`),
          ),
        ),
    ),
    page?.total > 0 && h(JobTable, { jobs: page.jobs, now: page.at, busy: answer.path !== path }),
    page?.total === 0 && h("p", { className: "edge-empty" }, NONE),
    page && h(Pager, { address, total: page.total, noun: "job", none: NONE, settled: answer.path === path }),
    answer.refusal && h("p", { role: "alert", className: "edge-alert" }, answer.refusal.message),
    !page && !answer.refusal && h(Loading),
  );
};

export const JobTable = ({ jobs, now, busy, caption = "Jobs", alone = false }) =>
  h(
    Table,
    { caption, columns: alone ? COLUMNS.filter(({ label }) => label !== "Worker") : COLUMNS, busy },
    jobs.map((job) => h(Line, { key: job.id, job, now, alone })),
  );

const Line = ({ job, now, alone }) =>
  h(
    "tr",
    { role: "row" },
    h("th", { role: "rowheader", scope: "row", className: "edge-task" }, h(Task, { job })),
    h(Cell, { label: "State" }, h(Badge, { state: job.state }), job.exit_code > 0 && h("span", { className: "edge-muted" }, ` exit code ${job.exit_code}`), job.error && h("span", { className: "edge-error", role: "group", tabIndex: 0, "aria-label": "Error" }, job.error)),
    h(Cell, { label: "Queue" }, job.queue, job.slots !== 1 && h("span", { className: "edge-muted" }, `${job.slots} slots`)),
    !alone && h(Cell, { label: "Worker" }, job.worker ? h(ViewLink, { to: { worker: job.worker } }, job.worker) : "–"),
    h(Cell, { label: "Queued" }, h(Moment, { at: job.queued_at, now })),
    h(Cell, { label: "Waited" }, duration(secondsBetween(job.queued_at, job.accepted_at ?? job.ended_at ?? now))),
    h(Cell, { label: "Ran" }, job.accepted_at ? duration(secondsBetween(job.accepted_at, job.ended_at ?? now)) : "–"),
    h(Cell, { label: "Links" }, h(Links, { job })),
  );

const Task = ({ job }) =>
  job.kind === "task"
    ? [
        h("span", { key: "dag", className: "edge-muted" }, job.dag_id),
        h(Link, { key: "task", to: taskPath(job) }, job.map_index >= 0 ? `${job.task_id} [${job.map_index}]` : job.task_id),
        h("span", { key: "run", className: "edge-muted" }, `${job.run_id}, try ${job.try_number}`),
      ]
    : [h("span", { key: "kind" }, job.kind === "callback" ? "callback" : "connection test"), h("span", { key: "dag", className: "edge-muted" }, job.dag_id)];

const taskPath = ({ dag_id, run_id, task_id, map_index }) => {
  const [dag, run, task] = [dag_id, run_id, task_id].map(encodeURIComponent);
  return `/dags/${dag}/runs/${run}/tasks/${task}${map_index >= 0 ? `/mapped/${map_index}` : ""}`;
};

const Links = ({ job }) => {
  const { context } = useLive();
  const trace = traceUrl(context.trace_url, job.trace_id);
  return h(
    "span",
    { className: "edge-links" },
    job.kind === "task" && h(Link, { to: `${taskPath(job)}?try_number=${job.try_number}` }, "log"),
    trace && h("a", { href: trace, target: "_blank", rel: "noreferrer" }, "trace"),
  );
};

// Only where it is HTTP: the setting may be anything.
export const traceUrl = (template, traceId) => {
  if (!template || !traceId) return null;
  try {
    const url = new URL(template.replaceAll("{trace_id}", encodeURIComponent(traceId)));
    return ["http:", "https:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
};
