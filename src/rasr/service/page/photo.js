// One photo on its way: what the gallery offers for it, the restorations made of it, and what the two sides show.
import { call, fileOf, follow, restore } from "./api.js";
import { say, unique } from "./kit.js";
import { Places } from "./places.js";
import { active, state } from "./words.js";

export const NONE = "none";
export const ALL = "all";

const OFTEN = 80;

/** Something that components watch. They hear of changes at most every 80 ms, and of the last one. */
export class Model {
  #watchers = new Set();
  #timer = 0;
  #told = 0;

  watch(watcher) {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  changed() {
    const wait = this.#told + OFTEN - performance.now();
    if (wait <= 0) this.#tell();
    else this.#timer ||= setTimeout(() => this.#tell(), wait);
  }

  #tell() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#told = performance.now();
    for (const watcher of this.#watchers) watcher();
  }
}

export class Photo extends Model {
  constructor(file, { src = URL.createObjectURL(file), gallery = "", settings = {} } = {}) {
    super();
    this.id = unique();
    this.file = file;
    this.name = file.name;
    this.src = src;
    this.size = null;
    this.unseen = false;
    this.gallery = gallery;
    this.settings = settings;
    this.found = { state: "idle", results: [], message: "" };
    this.own = [];
    this.choice = NONE;
    this.runs = [];
    this.left = "input";
    this.right = "input";
    this.stopping = new AbortController();
    this.#measure();
  }

  /** Take up jobs that were made before: `ids` are [id, choice], all of one photo. */
  static async of(ids, options) {
    const jobs = await Promise.all(ids.map(([id]) => call(`/jobs/${id}`)));
    const { id, name } = jobs[0];
    const file = await fileOf(`/jobs/${id}/input`, name.replace(/\.[^.]*$/, "") + ".png");
    const photo = new Photo(file, options);
    photo.name = name;
    jobs.forEach((job, number) => {
      const run = { choice: ids[number][1] || chosen(job), job, key: null, places: null };
      photo.runs.push(run);
      photo.choice = run.choice;
      if (active(job)) photo.#follow(run);
      else photo.#ended(run, true);
    });
    return photo;
  }

  /** The jobs, as the address of the page keeps them. */
  get address() {
    return this.runs.filter((run) => run.job).map((run) => `${run.job.id}~${run.choice}`).join("/");
  }

  async #measure() {
    try {
      const image = new Image();
      image.src = this.src;
      await image.decode();
      this.size = { width: image.naturalWidth, height: image.naturalHeight };
      this.unseen = false;
    } catch {
      this.unseen = true; // TIFF and HEIC: seen once the service has read them
    }
    this.changed();
  }

  /** Ask what a gallery offers. */
  async search(gallery) {
    this.gallery = gallery;
    if (!gallery) {
      this.found = { state: "idle", results: [], message: "" };
      return this.changed();
    }
    this.found = { state: "busy", results: [], message: "" };
    this.changed();
    const form = new FormData();
    form.append("file", this.file, this.file.name);
    form.append("gallery", gallery);
    form.append("k", "12");
    let found;
    try {
      const { results } = await call("/search", { method: "POST", form, signal: this.stopping.signal });
      found = { state: "done", results, message: "" };
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      found = { state: "failed", results: [], message: error.message };
    }
    if (this.gallery !== gallery) return undefined;
    this.found = found;
    const { length } = found.results;
    say(found.message || (length ? `${length} photos of ${gallery} found` : `${gallery} offers nothing for this picture`));
    return this.changed();
  }

  /** Offer a photo of the person's own as a reference. */
  addOwn(file) {
    const key = `own:${this.own.length + 1}`;
    this.own.push({ key, file, name: file.name, picture: URL.createObjectURL(file) });
    this.changed();
    return key;
  }

  /** What the strip offers: key, name and, for a photo, its reference. */
  get offers() {
    const compared = this.runs.flatMap(({ job }) => job?.references ?? []).filter((one) => one.verdict !== "not compared");
    const verdicts = new Map(compared.map((one) => [one.id ?? one.name, one]));
    const told = (one) => {
      const known = verdicts.get(one.id ?? one.name);
      return known ? { ...one, verdict: known.verdict, why: known.why } : one;
    };
    return [
      { key: NONE, name: "No reference" },
      ...(this.gallery ? [{ key: ALL, name: "All that match" }] : []),
      ...this.found.results.map((one) => ({ key: `photo:${one.id}`, name: one.name, reference: told(one) })),
      ...this.own.map((one) => ({ key: one.key, name: one.name, reference: told(one) })),
    ];
  }

  nameOf(choice) {
    const offer = this.offers.find((one) => one.key === choice);
    if (offer) return offer.name;
    const run = this.runs.find((one) => one.choice === choice);
    return run?.job?.references[0]?.name ?? "a photo";
  }

  /** The latest run of a choice with the settings as they are, unless it failed. */
  runOf(choice) {
    const key = this.#key(choice);
    const found = this.runs.filter((run) => run.choice === choice && (run.key === key || run.key === null));
    return found.findLast((run) => !run.job || active(run.job) || run.job.state === "done");
  }

  #key(choice) {
    return JSON.stringify([choice, this.gallery, this.settings]);
  }

  /** Restore with a choice, or show what was made with it. */
  async restore(choice) {
    this.choice = choice;
    const before = this.runOf(choice);
    if (before) {
      if (before.job?.state === "done") this.right = `job:${before.job.id}`;
      return this.changed();
    }
    const run = { choice, job: null, key: this.#key(choice), places: null, note: "Sending" };
    this.runs.push(run);
    this.changed();
    say(`Restoring with ${this.nameOf(choice).toLowerCase()}`);
    try {
      run.job = await restore(this.file, this.#fields(choice), (seconds) => {
        run.note = `The queue is full: asked again in ${seconds} s`;
        this.changed();
      });
    } catch (error) {
      run.note = "";
      run.error = error.message;
      say(error.message);
      return this.changed();
    }
    run.note = "";
    if (this.unseen) {
      this.src = `/jobs/${run.job.id}/input`;
      this.size = run.job.input;
      this.unseen = false;
    }
    this.changed();
    return this.#follow(run);
  }

  #fields(choice) {
    const fields = Object.entries(this.settings).map(([key, value]) => [key, String(value)]);
    if (choice === NONE) fields.push(["references", "none"]);
    else if (choice === ALL) fields.push(["gallery", this.gallery]);
    else if (choice.startsWith("photo:")) fields.push(["gallery", this.gallery], ["photo", choice.slice(6)]);
    else fields.push(["reference", this.own.find((one) => one.key === choice).file]);
    return fields;
  }

  async #follow(run) {
    const heard = (job) => {
      const before = run.job.state;
      run.job = job;
      if (before !== job.state && job.state === "running") say(`Restoring ${this.name}`);
      this.changed();
    };
    if (active(run.job)) await follow(run.job.id, heard, this.stopping.signal);
    if (!this.stopping.signal.aborted) await this.#ended(run);
  }

  async #ended(run, quiet = false) {
    const { job } = run;
    if (job.state === "done") {
      this.right = `job:${job.id}`;
      if (job.references.some((one) => one.share > 0)) {
        try {
          run.places = new Places(await call(`/jobs/${job.id}/evidence`), job);
        } catch (error) {
          say(error.message);
        }
      }
    }
    if (!quiet) say(job.state === "done" ? `${this.nameOf(run.choice)}: done` : state(job));
    this.changed();
  }

  async cancel(run) {
    try {
      await call(`/jobs/${run.job.id}`, { method: "DELETE" });
    } catch (error) {
      say(error.message);
    }
  }

  /** Take a run that led to nothing off the list. */
  dismiss(run) {
    this.runs = this.runs.filter((one) => one !== run);
    this.changed();
  }

  get done() {
    return this.runs.filter((run) => run.job?.state === "done");
  }

  /** Everything that a side can show. */
  get layers() {
    const layers = [];
    if (!this.unseen) layers.push({ key: "input", kind: "Input", name: "", src: this.src, size: this.size, box: null });
    for (const run of this.done) {
      const { job } = run;
      const base = `/jobs/${job.id}`;
      const evidence = run.places && { key: `evidence:${job.id}`, src: `${base}/evidence.png`, box: null };
      const name = this.#distinct(run);
      layers.push({ key: `job:${job.id}`, kind: "Result", name, src: `${base}/view`, size: job.result, box: null, run, evidence });
    }
    const seen = new Set();
    for (const run of [...this.done].reverse()) {
      for (const one of run.job.references) {
        const key = `ref:${one.id ?? one.name}`;
        if (seen.has(key) || !(one.share > 0 || run.choice !== ALL)) continue;
        seen.add(key);
        layers.push({ key, kind: "Reference", name: one.name, src: one.picture, size: one, box: this.#box(run, one) });
      }
    }
    return layers;
  }

  /** Name of a result: its choice, numbered where the same was made with other settings. */
  #distinct(run) {
    const same = this.done.filter((one) => one.choice === run.choice);
    const name = this.nameOf(run.choice);
    return same.length > 1 ? `${name}, ${same.indexOf(run) + 1}` : name;
  }

  /** Where a reference lies: as its places say, else whole, in the middle of the picture. */
  #box(run, reference) {
    const found = run.places?.box(reference.index);
    if (found) return found;
    const frame = run.job.result.height / run.job.result.width;
    const ratio = reference.height / reference.width;
    const width = Math.min(1, frame / ratio);
    return { x: (1 - width) / 2, y: (frame - width * ratio) / 2, width };
  }

  layer(key) {
    return this.layers.find((one) => one.key === key);
  }

  /** Size whose pixels the zoom counts: the largest result, or the input while there is none. */
  get frame() {
    const sizes = this.done.map((run) => run.job.result);
    return sizes.sort((a, b) => b.width - a.width)[0] ?? this.size;
  }

  /** Let go of streams and pictures. Jobs go on. */
  close() {
    this.stopping.abort();
    for (const src of [this.src, ...this.own.map((one) => one.picture)]) {
      if (src.startsWith("blob:")) URL.revokeObjectURL(src);
    }
  }
}

/** What a job that this page did not make was asked to use. */
function chosen(job) {
  if (!job.references.length) return NONE;
  return job.references.length === 1 && job.references[0].id ? `photo:${job.references[0].id}` : ALL;
}
