// Questions to the server that the page came from, with the token where one was given.

const TOKEN = "tollmesh.token";

/** What the server refused, in its own words. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

/** Keeps the token for as long as this tab is open; null forgets it. */
export function keepToken(token) {
  if (token === null) sessionStorage.removeItem(TOKEN);
  else sessionStorage.setItem(TOKEN, token);
}

/** A question: its path and its parameters. Those that are null are left out. */
export function question(path, parameters) {
  const given = parameters.filter(([, value]) => value !== null && value !== undefined);
  return { path, parameters: given };
}

/** The answer's JSON; null where this server has no such page. */
export async function ask(asked, signal) {
  const response = await fetched(asked, "application/json", signal);
  if (response.status === 404) return null;
  await checked(response);
  return response.json();
}

/** The answer as CSV, which is of everything, however long that takes. */
export async function askCsv({ path, parameters }) {
  const patient = parameters.filter(([name]) => name !== "within");
  const response = await fetched({ path, parameters: patient }, "text/csv");
  await checked(response);
  return response.blob();
}

function fetched({ path, parameters }, accept, signal) {
  const headers = { accept };
  const token = sessionStorage.getItem(TOKEN);
  if (token !== null) headers.authorization = `Bearer ${token}`;
  const query = new URLSearchParams(parameters).toString();
  const url = query ? `${path}?${query}` : path;
  return fetch(url, { headers, signal, credentials: "omit", redirect: "error" });
}

async function checked(response) {
  if (response.ok) return;
  const problem = await response.json().catch(() => null);
  throw new Refused(response.status, problem?.detail ?? `status ${response.status}`);
}
