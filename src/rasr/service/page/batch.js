// Many photos at once: each sent, each with its state, the finished ones as one zip.
import { call, download, jobsOf, restore } from "./api.js";
import { html, say, unique, useEffect, useState } from "./kit.js";
import { Model } from "./photo.js";
import { useModel } from "./parts.js";
import { Settings } from "./settings.js";
import { active, plural, state } from "./words.js";

const AT_ONCE = 3;
const EVERY = 1500;
const batches = new Map();

/** Photos dropped together. */
export class Batch extends Model {
  constructor(label) {
    super();
    Object.assign(this, { label, rows: [], others: 0, sending: false, stopped: false, loaded: false, error: "" });
    batches.set(label, this);
  }

  /** A batch of files that are still here. */
  static planned(files, others, gallery) {
    const batch = new Batch(`photos-${unique().slice(0, 8)}`);
    batch.rows = files.map((file, number) => ({ key: number, name: file.webkitRelativePath || file.name, file, job: null, error: "", note: "" }));
    Object.assign(batch, { others, gallery, settings: {}, loaded: true, started: false });
    return batch;
  }

  static of(label) {
    return batches.get(label) ?? new Batch(label);
  }

  async start() {
    this.started = true;
    this.sending = true;
    this.stopped = false;
    this.changed();
    const waiting = this.rows.filter((row) => !row.job && !row.error);
    const fields = [["batch", this.label], ...Object.entries(this.settings)];
    fields.push(this.gallery ? ["gallery", this.gallery] : ["references", "none"]);
    const send = async () => {
      for (let row = waiting.shift(); row && !this.stopped; row = waiting.shift()) {
        row.note = "Sending";
        this.changed();
        try {
          row.job = await restore(row.file, fields, (seconds) => {
            row.note = `The queue is full: asked again in ${seconds} s`;
            this.changed();
          });
        } catch (error) {
          row.error = error.message;
        }
        row.note = "";
        this.changed();
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, send));
    this.sending = false;
    this.changed();
  }

  /** Ask the service for the states. */
  async refresh() {
    let jobs;
    try {
      jobs = await jobsOf(this.label);
      this.error = "";
    } catch (error) {
      this.error = error.message;
      return this.changed();
    }
    const rows = new Map(this.rows.filter((row) => row.job).map((row) => [row.job.id, row]));
    for (const job of jobs) {
      const row = rows.get(job.id);
      if (row) row.job = job;
      else if (!this.rows.some((one) => one.note && one.file?.name === job.name)) {
        this.rows.push({ key: `job:${job.id}`, name: job.name, file: null, job, error: "", note: "" });
      }
    }
    this.loaded = true;
    return this.changed();
  }

  count(...states) {
    return this.rows.filter((row) => states.includes(at(row))).length;
  }

  get busy() {
    return this.sending || this.rows.some((row) => row.job && active(row.job));
  }

  async cancel() {
    this.stopped = true;
    for (const row of this.rows) {
      if (row.job && active(row.job)) await call(`/jobs/${row.job.id}`, { method: "DELETE" }).catch(() => {});
    }
    await this.refresh();
  }

  retry() {
    for (const row of this.rows) {
      if (row.file && ["failed", "cancelled"].includes(at(row))) Object.assign(row, { job: null, error: "", note: "" });
    }
    return this.start();
  }
}

/** Where a row is: not sent, or as its job says. */
function at(row) {
  if (row.error) return "failed";
  return row.job?.state ?? "waiting";
}

export function sending() {
  return Array.from(batches.values()).some((one) => one.sending);
}

export function BatchPage({ label, about, galleries }) {
  const batch = useModel(Batch.of(label));
  const [only, setOnly] = useState(false);
  const live = batch.started || !batch.rows.some((row) => row.file);
  useEffect(() => {
    if (!live) return undefined;
    let timer;
    let there = true;
    const turn = async () => {
      await batch.refresh();
      if (there && (batch.busy || batch.error)) timer = setTimeout(turn, EVERY);
    };
    turn();
    return () => {
      there = false;
      clearTimeout(timer);
    };
  }, [batch, live, batch.busy]);
  const { rows } = batch;
  const done = batch.count("done");
  const failed = batch.count("failed");
  const ended = done + failed + batch.count("cancelled");
  const finished = live && batch.loaded && rows.length > 0 && ended === rows.length;
  const told = `${done} of ${plural(rows.length, "photo")} restored${failed ? `, ${failed} failed` : ""}`;
  useEffect(() => finished && say(told), [finished]);
  if (!live) return html`<${Plan} batch=${batch} about=${about} galleries=${galleries} />`;
  const shown = only ? rows.filter((row) => at(row) === "failed") : rows;
  return html`<main class="page" id="main">
    <div class="title"><h1>${plural(rows.length, "photo")}</h1><p>${label}</p></div>
    ${batch.error && html`<p class="failed" role="alert">${batch.error}</p>`}
    <div class="run">
      <p><strong class="told">${told}</strong> <span>${batch.sending ? "Sending: keep this page open" : ""}</span></p>
      <progress aria-label="Photos of this batch" max=${rows.length || 1} value=${ended}></progress>
      <div class="buttons">
        <button type="button" class="primary" disabled=${!done} onClick=${() => download(`/batches/${encodeURIComponent(label)}/zip`, `${label}.zip`)}>Download all (zip)</button>
        ${batch.busy && html`<button type="button" onClick=${() => batch.cancel()}>Cancel the rest</button>`}
        ${!batch.busy && rows.some((row) => row.file && ["failed", "cancelled"].includes(at(row))) && html`<button type="button" onClick=${() => batch.retry()}>Try again what failed</button>`}
        ${failed > 0 && html`<button type="button" aria-pressed=${String(only)} onClick=${() => setOnly(!only)}>Only what failed</button>`}
      </div>
    </div>
    <div class="table" role="region" tabindex="0" aria-label="Photos">
      <table>
        <thead><tr><th scope="col">Photo</th><th scope="col">State</th><th scope="col">Evidence</th></tr></thead>
        <tbody>${shown.map((row) => html`<${Row} key=${row.key} row=${row} />`)}</tbody>
      </table>
    </div>
  </main>`;
}

function Row({ row }) {
  const { job } = row;
  const where = at(row);
  const words = row.error || row.note || (job ? state(job) : "Waiting to be sent");
  const share = job?.state === "done" && job.drawn != null ? Math.round((1 - job.drawn) * 100) : null;
  return html`<tr class=${where}>
    <th scope="row">${job?.state === "done" ? html`<a href=${`#/photo/${job.id}`}>${row.name}</a>` : row.name}</th>
    <td>${words}</td>
    <td>${share == null ? "" : `${share} % from photos`}</td>
  </tr>`;
}

/** Before the first is sent: how many, with which gallery and settings. */
function Plan({ batch, about, galleries }) {
  const { rows, others } = batch;
  return html`<main class="page" id="main">
    <h1>Restore ${plural(rows.length, "photo")}</h1>
    ${others > 0 && html`<p class="hint">${plural(others, "file")} left out, being no pictures.</p>`}
    <div class="panel">
      <label>Gallery
        <select value=${batch.gallery} onChange=${(event) => {
          batch.gallery = event.currentTarget.value;
          batch.changed();
        }}>
          <option value="">none</option>
          ${galleries.map((one) => html`<option key=${one.name} value=${one.name}>${one.name} (${plural(one.photos, "photo")})</option>`)}
        </select>
      </label>
      <${Settings} about=${about} values=${batch.settings} set=${(values) => {
        batch.settings = values;
        batch.changed();
      }} />
      <div class="buttons"><button type="button" class="primary" onClick=${() => batch.start()}>Start</button></div>
    </div>
    <ul class="names">${rows.slice(0, 500).map((row) => html`<li key=${row.key}>${row.name}</li>`)}</ul>
  </main>`;
}

/** What was made lately: single photos and batches. */
export function Recent() {
  const [jobs, setJobs] = useState(null);
  useEffect(() => {
    call("/jobs?limit=60").then((page) => setJobs(page.jobs), () => setJobs([]));
  }, []);
  if (!jobs?.length) return null;
  const seen = new Set();
  const shown = jobs.filter((job) => !job.batch || (!seen.has(job.batch) && seen.add(job.batch))).slice(0, 12);
  return html`<section class="recent" aria-label="Lately">
    <h2>Lately</h2>
    <ul>
      ${shown.map((job) => html`<li key=${job.id}>
        <a href=${job.batch ? `#/batch/${job.batch}` : `#/photo/${job.id}`}>${job.batch ? `Batch ${job.batch}` : job.name}</a>
        <span>${job.batch ? "" : state(job)}</span>
        <time datetime=${job.created}>${new Date(job.created).toLocaleString()}</time>
      </li>`)}
    </ul>
  </section>`;
}
