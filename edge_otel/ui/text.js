// Numbers, times and states in words.

const UNITS = [
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
];

// Seconds as people say them: the two largest units of days, hours, minutes and seconds.
export const duration = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  for (const [index, [unit, size]] of UNITS.entries()) {
    if (whole < size) continue;
    const [next, small] = UNITS[index + 1] ?? ["s", 1];
    const rest = Math.floor((whole % size) / small);
    return rest && whole < 10 * size ? `${Math.floor(whole / size)} ${unit} ${rest} ${next}` : `${Math.floor(whole / size)} ${unit}`;
  }
  return `${whole} s`;
};

export const secondsBetween = (earlier, later) => (Date.parse(later) - Date.parse(earlier)) / 1000;

// In the time zone that the user chose in Airflow, or else in the browser's.
const zone = () => {
  try {
    return JSON.parse(localStorage.getItem("timezone")) ?? undefined;
  } catch {
    return undefined;
  }
};

const formats = new Map();

export const clock = (iso) => {
  const chosen = zone();
  if (!formats.has(chosen)) formats.set(chosen, formatIn(chosen));
  return formats.get(chosen).format(new Date(iso));
};

const formatIn = (timeZone) => {
  const parts = { dateStyle: "medium", timeStyle: "medium" };
  try {
    return new Intl.DateTimeFormat(undefined, { ...parts, timeZone });
  } catch {
    return new Intl.DateTimeFormat(undefined, parts);
  }
};

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString()} ${number === 1 ? one : many}`;

export const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(value)} %`);

// Why a state was stored.
export const cause = (told) => {
  if (told.startsWith("admin:")) return `by ${told.slice(6)}`;
  return { heartbeat: "by its report", registered: "registered", expired: "no heartbeat", worker: "by the worker" }[told] ?? told;
};

// Who began a maintenance.
export const origin = (told) =>
  ({ admin: "by an administrator", local: "at the site", automatic: "by itself: host health" })[told] ?? told ?? "";

// A worker's state in short: since when, and why where that says more than the state.
export const standing = (worker, now) => {
  const since = duration(secondsBetween(worker.state_since, now));
  if (worker.state_cause === "expired") return `no heartbeat for ${duration(worker.heartbeat_age)}`;
  const why = worker.state_cause.startsWith("admin:") ? ` ${cause(worker.state_cause)}` : "";
  return `for ${since}${why}`;
};

export const queuesOf = (queues) => (queues === null ? "all queues" : queues.join(", ") || "none");
