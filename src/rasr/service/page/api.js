// The service, as the page calls it: JSON or a Failure in words, one token, one stream of events a job.
import { unique } from "./kit.js";

/** What a person is told when a call did not work. */
export class Failure extends Error {
  constructor(message, { code = "", status = 0, wait = 0 } = {}) {
    super(message);
    Object.assign(this, { code, status, wait });
  }
}

let token = sessionStorage.getItem("rasr-token");
let asked = null;
let ask = () => Promise.reject(new Failure("The service asks for a token."));

/** Set the function that asks a person for the token; it resolves when there is one. */
export function onTokenWanted(handler) {
  ask = handler;
}

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function fetched(path, options = {}) {
  for (;;) {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: headers(options.headers) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure("The service does not answer. Is 'rasr serve' still running?", { code: "offline" });
    }
    if (answer.status !== 401) return answer;
    asked ??= ask(Boolean(token)).finally(() => (asked = null));
    token = await asked;
    sessionStorage.setItem("rasr-token", token);
  }
}

/** Call the service; returns its JSON, or null where it says nothing. Throws Failure. */
export async function call(path, { method = "GET", json, form, signal, headers: more } = {}) {
  const options = { method, signal, headers: { ...more } };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["Content-Type"] = "application/json";
  } else if (form) options.body = form;
  const answer = await fetched(path, options);
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const told = await answer.json().catch(() => null);
  throw new Failure(told?.error?.message ?? `The service answered ${answer.status} ${answer.statusText}.`, {
    code: told?.error?.code,
    status: answer.status,
    wait: Number(answer.headers.get("Retry-After")) || 0,
  });
}

/** Call as often as the queue is full, waiting as long as the service says; `waiting` hears for how long. */
export async function callWhenFree(path, options, waiting = () => {}) {
  for (;;) {
    try {
      return await call(path, options);
    } catch (error) {
      if (error.status !== 429 && error.status !== 503) throw error;
      const seconds = Math.min(Math.max(error.wait, 1), 60);
      waiting(seconds);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

const blobs = new Map();

/** Address that an image element can load: with a token, pictures are fetched and kept as blobs. */
export async function picture(address) {
  if (!token || /^(blob|data):/.test(address)) return address;
  if (!blobs.has(address)) {
    const loading = fetched(address).then(async (answer) => {
      if (!answer.ok) throw new Failure(`A picture could not be loaded (${answer.status}).`);
      return URL.createObjectURL(await answer.blob());
    });
    loading.catch(() => blobs.delete(address));
    blobs.set(address, loading);
  }
  return blobs.get(address);
}

/** File of an address, named. */
export async function fileOf(address, name) {
  const answer = await fetched(address);
  if (!answer.ok) throw new Failure(`${name} could not be loaded (${answer.status}).`);
  const blob = await answer.blob();
  return new File([blob], name, { type: blob.type });
}

/** Let the browser save what is at an address. */
export async function download(address, name) {
  const link = document.createElement("a");
  link.href = await picture(address);
  link.download = name ?? "";
  document.body.append(link);
  link.click();
  link.remove();
}

/** Send a restoration; `more` are further fields. Returns the job. Sending it twice makes one job. */
export function restore(file, more, waiting) {
  const form = new FormData();
  form.append("file", file, file.name);
  for (const [key, value] of more) {
    if (value instanceof File) form.append(key, value, value.name);
    else form.append(key, value);
  }
  return callWhenFree("/jobs", { method: "POST", form, headers: { "Idempotency-Key": unique() } }, waiting);
}

/** Follow a job until it ends; `heard` gets each of its states. A stream that breaks is taken up again. */
export async function follow(id, heard, signal) {
  let last = "";
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      const answer = await fetched(`/jobs/${id}/events`, { signal, headers: last ? { "Last-Event-ID": last } : {} });
      if (answer.status === 404) return;
      if (!answer.ok) throw new Failure(`events: ${answer.status}`);
      for await (const event of events(answer.body)) {
        wait = 500;
        last = event.id || last;
        if (event.event !== "job") continue;
        const job = JSON.parse(event.data);
        heard(job);
        if (job.state !== "queued" && job.state !== "running") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Failure) && !(error instanceof TypeError)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (signal.aborted) return;
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { event: "message", id: "", data: "" };
      for (const line of block.split(/\r?\n/)) {
        const [, key, text] = /^(event|id|data): ?(.*)$/.exec(line) ?? [];
        if (key === "data") event.data += (event.data && "\n") + text;
        else if (key) event[key] = text;
      }
      yield event;
    }
  }
}

/** All jobs of a batch, page by page, oldest first. */
export async function jobsOf(batch) {
  const found = [];
  let before = null;
  do {
    const query = new URLSearchParams({ batch, limit: "100", ...(before && { before }) });
    const page = await call(`/jobs?${query}`);
    found.push(...page.jobs);
    before = page.next;
  } while (before);
  return found.reverse();
}
