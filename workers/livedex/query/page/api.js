// Asks the query worker, and says in plain words what it answers when it refuses. The token lives in this tab's session storage.

const KEY = "livedex.token";
const PATIENCE = 20000; // ms: longer than any answer that is worth waiting for

/** The token, or "". */
export function token() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** Keep a token until the tab is closed; "" forgets it. */
export function keepToken(value) {
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // storage is forbidden here: the next request goes without
  }
}

/** Why there is no answer. `status` is 0 when the worker could not be reached at all. */
export class Refused extends Error {
  constructor(status, problem = {}, retryAfter = null) {
    super(String(problem.detail ?? ""));
    this.status = status;
    this.detail = String(problem.detail ?? "");
    this.hint = problem.hint ? String(problem.hint) : "";
    this.dependency = problem.dependency ? String(problem.dependency) : "";
    this.retryAfter = retryAfter;
  }
}

/** The JSON of an answer; throws Refused. `signal` gives the request up. */
export async function ask(path, { method = "GET", body, signal } = {}) {
  const given = new AbortController();
  const timer = setTimeout(() => given.abort(), PATIENCE);
  signal?.addEventListener("abort", () => given.abort());
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  try {
    const answer = await fetch(path, {
      method, headers, body: body && JSON.stringify(body), signal: given.signal,
      cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
    });
    const content = await answer.json().catch(() => ({}));
    if (answer.ok) return content;
    throw new Refused(answer.status, content, Number(answer.headers.get("Retry-After")) || null);
  } catch (error) {
    if (signal?.aborted || error instanceof Refused) throw error;
    throw new Refused(0, { detail: given.signal.aborted ? `no answer within ${PATIENCE / 1000} s` : "" });
  } finally {
    clearTimeout(timer);
  }
}

const DEPENDENCY = { postgres: "Postgres does not answer", embedder: "The model is not ready" };

const TITLES = {
  0: "The query worker does not answer",
  400: "This cannot be searched for",
  401: "A token is needed",
  403: "This token may not do that",
  404: "There is no such thing here",
  409: "Something else is in the way",
  413: "This is too long",
  429: "Too many searches at once",
  503: "Something that is needed is away",
  504: "No answer in time",
};

const REMEDIES = {
  0: "It may be restarting, or the network is down.",
  429: "The server is busy and takes no more searches for now.",
  504: "The server is slow at the moment. Try again, or ask for less.",
};

/** What a person is told: title and text. */
export function told(error) {
  if (!(error instanceof Refused)) return { title: "The page made a mistake", text: String(error) };
  let title = TITLES[error.status] ?? "The query worker failed";
  if (error.status === 503) title = DEPENDENCY[error.dependency] ?? title;
  if (error.status === 401 && token()) title = "The token is not taken";
  const wait = error.status === 429 && error.retryAfter ? ` Ask again in ${error.retryAfter} s.` : "";
  const detail = [error.detail, error.hint].filter(Boolean).map((text) => `${text[0].toUpperCase()}${text.slice(1)}.`);
  return { title, text: [(REMEDIES[error.status] ?? "") + wait, ...detail].filter(Boolean).join(" ") };
}
