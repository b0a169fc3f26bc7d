// Calls to the Edge API with the user's own login. Every failure is a Refusal, whose message can be shown.

export class Refusal extends Error {
  // status: of HTTP; 0 where no server answered.
  constructor(status, text) {
    super(text);
    this.status = status;
  }

  // Whether the server may have done what it was asked for, and nobody knows.
  get lost() {
    return this.status === 0 || this.status >= 500;
  }
}

// Milliseconds until a server that says nothing is given up.
const PATIENCE = 10_000;
const PATIENCE_WITH_A_DEED = 60_000;

const url = (path) => new URL(`edge_worker/ui/${path}`, document.baseURI);

export const loginUrl = () => {
  const login = new URL("api/v2/auth/login", document.baseURI);
  login.searchParams.set("next", location.href);
  return login.href;
};

// A list becomes a repeated parameter; what is empty is left out.
export const query = (parameters) => {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== "" && one !== null && one !== undefined && one !== false) search.append(name, one);
    }
  }
  const text = search.toString();
  return text ? `?${text}` : "";
};

export const get = (path, signal) => call(path, {}, PATIENCE, signal);

export const post = (path, body, header, signal) =>
  call(
    path,
    { method: "POST", headers: { "Content-Type": "application/json", [header]: "1" }, body: JSON.stringify(body) },
    PATIENCE_WITH_A_DEED,
    signal,
  );

// By the name of what fetch throws.
const REASONS = { TimeoutError: "The server does not answer.", AbortError: "It was stopped." };
const refusalOf = (failure, text) => new Refusal(0, REASONS[failure.name] ?? text);

async function call(path, options, patience, stop) {
  const patient = AbortSignal.timeout(patience);
  const signal = stop ? AbortSignal.any([stop, patient]) : patient;
  let answer;
  try {
    answer = await fetch(url(path), { credentials: "same-origin", cache: "no-store", signal, ...options });
  } catch (failure) {
    throw refusalOf(failure, "The server cannot be reached.");
  }
  let said = null;
  try {
    said = await answer.json();
  } catch (failure) {
    if (answer.ok) throw refusalOf(failure, "The server's answer was cut off.");
  }
  if (answer.ok) return said;
  if (answer.status === 401) throw new Refusal(401, "Your login has ended.");
  throw new Refusal(answer.status, said?.detail ?? `The server answered with ${answer.status}.`);
}
