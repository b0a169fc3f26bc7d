// States as badges: a shape, a colour and the word.
import { h } from "./react.js";

// Tone and shape by state, of workers, jobs and tokens.
const LOOKS = {
  starting: ["busy", "◌"],
  idle: ["good", "○"],
  running: ["good", "●"],
  "shutdown request": ["asked", "◔"],
  terminating: ["asked", "◑"],
  offline: ["gone", "□"],
  unknown: ["bad", "▲"],
  "maintenance request": ["care", "◔"],
  "maintenance pending": ["care", "◇"],
  "maintenance mode": ["care", "◆"],
  "maintenance exit": ["care", "◕"],
  "offline maintenance": ["gone", "◇"],
  queued: ["gone", "◌"],
  assigned: ["busy", "◔"],
  success: ["good", "✓"],
  failed: ["bad", "✕"],
  lost: ["bad", "▲"],
  valid: ["good", "✓"],
  expired: ["gone", "□"],
  revoked: ["bad", "✕"],
};

export const WORKER_STATES = [
  "running",
  "idle",
  "starting",
  "maintenance request",
  "maintenance pending",
  "maintenance mode",
  "maintenance exit",
  "shutdown request",
  "terminating",
  "unknown",
  "offline maintenance",
  "offline",
];
export const JOB_STATES = ["queued", "assigned", "running", "success", "failed", "lost"];
export const GONE = ["offline", "offline maintenance", "unknown"];
export const IN_MAINTENANCE = ["maintenance request", "maintenance pending", "maintenance mode", "offline maintenance"];

export const Badge = ({ state }) => {
  const [tone, shape] = LOOKS[state] ?? ["gone", "□"];
  return h("span", { className: `edge-badge edge-tone-${tone}` }, h("span", { className: "edge-shape", "aria-hidden": true }, shape), state);
};

export const Mark = ({ tone = "asked", title, children }) => h("span", { className: `edge-badge edge-small edge-tone-${tone}`, title }, children);
