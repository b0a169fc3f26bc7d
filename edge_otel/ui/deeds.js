// What can be done to workers: names, what each asks for, and which workers it is for.
import { GONE, IN_MAINTENANCE } from "./badge.js";

const inMaintenance = (worker) => IN_MAINTENANCE.includes(worker.state);
const here = (worker) => !GONE.includes(worker.state);

const names = (text) => text.split(",").map((name) => name.trim()).filter(Boolean);
const shown = ({ queues }) => `Queues: ${names(queues).map((name) => `“${name}”`).join(", ")}.`;

// shows(values): what is confirmed. fields: how the dialog asks; action(values): as the API takes it; fits(worker): whether a worker's menu has it.
export const DEEDS = [
  {
    kind: "maintenance_on",
    text: "Maintenance on",
    about: "It finishes its jobs and takes no more until maintenance ends.",
    fields: [{ name: "comment", label: "Comment", hint: "why; shown beside the worker. Empty: a comment that it has stays" }],
    action: ({ comment }) => (comment.trim() ? { comment: comment.trim() } : {}),
    fits: (worker) => !inMaintenance(worker) || worker.maintenance_origin === "automatic",
  },
  {
    kind: "maintenance_off",
    text: "Maintenance off",
    about: "It takes jobs again.",
    fields: [],
    action: () => ({}),
    fits: inMaintenance,
  },
  {
    kind: "maintenance_comment",
    text: "Edit comment",
    about: "The comment on its maintenance is replaced.",
    fields: [{ name: "comment", label: "Comment", required: true, of: (worker) => worker.maintenance_comment ?? "" }],
    action: ({ comment }) => ({ comment: comment.trim() }),
    fits: inMaintenance,
  },
  {
    kind: "add_queues",
    text: "Add queues",
    about: "It serves these queues, too. One that serves all queues would then serve only these.",
    fields: [{ name: "queues", label: "Queues", required: true, hint: "names, separated by commas" }],
    action: ({ queues }) => ({ queues: names(queues) }),
    shows: shown,
    fits: here,
  },
  {
    kind: "remove_queues",
    text: "Remove queues",
    about: "It does not serve these queues any more; jobs that it has go on.",
    fields: [{ name: "queues", label: "Queues", required: true, hint: "names, separated by commas" }],
    action: ({ queues }) => ({ queues: names(queues) }),
    shows: shown,
    fits: here,
  },
  {
    kind: "set_concurrency",
    text: "Set slots",
    about: "Its concurrency: so many slots it has for jobs. Jobs that run go on.",
    fields: [{ name: "slots", label: "Slots", required: true, type: "number", of: (worker) => worker.slots ?? "" }],
    action: ({ slots }) => ({ slots: Number(slots) }),
    fits: here,
  },
  {
    kind: "shutdown",
    text: "Shut down",
    about: "It finishes its jobs and stops. It has to be started again at the site.",
    fields: [],
    action: () => ({}),
    fits: here,
    grave: true,
  },
  {
    kind: "remove",
    text: "Remove",
    about: "A worker that is gone is forgotten, with its history and the lines of its log, once the scheduler has settled its running jobs.",
    fields: [],
    action: () => ({}),
    fits: (worker) => !here(worker),
    grave: true,
  },
];
