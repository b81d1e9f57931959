// Galleries: made by dropping a folder, looked through, searched with a picture.
import { call, callWhenFree } from "./api.js";
import { Drop, hashOf } from "./files.js";
import { html, kept, say, useEffect, useReducer, useState } from "./kit.js";
import { Model } from "./photo.js";
import { Picture, useModel } from "./parts.js";
import { plural, verdict } from "./words.js";

const AT_ONCE = 3;
const uploads = new Map();

/** Files on their way into a gallery: hashes first, and only those that are new are sent. */
class Upload extends Model {
  constructor(gallery) {
    super();
    Object.assign(this, { gallery, files: [], hashed: 0, known: 0, sent: 0, failed: [], at: "", others: 0 });
  }

  get busy() {
    return this.at !== "";
  }

  async run(files, others, finished) {
    Object.assign(this, { files, others, hashed: 0, known: 0, sent: 0, failed: [], at: "Comparing" });
    this.changed();
    const base = `/galleries/${encodeURIComponent(this.gallery)}`;
    try {
      const hashes = [];
      for (const file of files) {
        hashes.push(await hashOf(file).catch(() => null));
        this.hashed += 1;
        this.changed();
      }
      const there = hashes.filter(Boolean);
      const unknown = new Set();
      for (let at = 0; at < there.length; at += 1000) {
        const told = await call(`${base}/known`, { method: "POST", json: { hashes: there.slice(at, at + 1000) } });
        for (const one of told.unknown) unknown.add(one);
      }
      const wanted = files.filter((_, number) => !hashes[number] || unknown.delete(hashes[number]));
      this.known = files.length - wanted.length;
      this.wanted = wanted.length;
      this.at = "Sending";
      this.changed();
      const queue = [...wanted];
      const send = async () => {
        for (let file = queue.shift(); file; file = queue.shift()) {
          const form = new FormData();
          form.append("file", file, file.name);
          try {
            await callWhenFree(`${base}/photos`, { method: "POST", form });
            this.sent += 1;
          } catch (error) {
            this.failed.push({ name: file.name, message: error.message });
          }
          this.changed();
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, send));
    } catch (error) {
      this.failed.push({ name: this.gallery, message: error.message });
    }
    this.at = "";
    this.changed();
    say(this.told);
    finished();
  }

  get told() {
    const { known, sent, failed, others } = this;
    const parts = [`${plural(sent, "photo")} sent`];
    if (known) parts.push(`${known} there already`);
    if (failed.length) parts.push(`${failed.length} refused`);
    if (others) parts.push(`${plural(others, "file")} left out, being no pictures`);
    return parts.join(", ");
  }
}

function uploadOf(gallery) {
  if (!uploads.has(gallery)) uploads.set(gallery, new Upload(gallery));
  return uploads.get(gallery);
}

/** Whether leaving the page would cut something off. */
export function sending() {
  return Array.from(uploads.values()).some((one) => one.busy);
}

export function Galleries({ galleries, reload }) {
  const [name, setName] = useState("");
  const [error, setError] = useState("");
  const make = async (event) => {
    event.preventDefault();
    try {
      const made = await call("/galleries", { method: "POST", json: { name: name.trim() } });
      await reload();
      location.hash = `#/galleries/${encodeURIComponent(made.name)}`;
    } catch (failure) {
      setError(failure.message);
    }
  };
  return html`<main class="page" id="main">
    <h1>Galleries</h1>
    <p class="lead">Your good photos. RASR looks among them for the place that a bad photo shows.</p>
    <ul class="tiles">
      ${galleries.map((one) => html`<li key=${one.name}><a href=${`#/galleries/${encodeURIComponent(one.name)}`}>
        <strong>${one.name}</strong><span>${plural(one.photos, "photo")}${one.writable ? "" : ", read only"}</span></a></li>`)}
    </ul>
    <form class="panel inline" onSubmit=${make}>
      <label>New gallery <input type="text" required maxlength="64" value=${name} onInput=${(event) => setName(event.currentTarget.value)} /></label>
      <button type="submit" class="primary">Make it</button>
      ${error && html`<p class="failed" role="alert">${error}</p>`}
    </form>
  </main>`;
}

export function Gallery({ name, reload }) {
  const base = `/galleries/${encodeURIComponent(name)}`;
  const upload = useModel(uploadOf(name));
  const [info, setInfo] = useState(null);
  const [photos, setPhotos] = useState({ list: [], next: null });
  const [found, setFound] = useState(null);
  const [error, setError] = useState("");
  const [version, again] = useReducer((count) => count + 1, 0);
  const attempt = (work) => work().catch((failure) => {
    setError(failure.message);
    say(failure.message);
  });
  const page = async (after) => {
    const query = new URLSearchParams({ limit: "120", ...(after && { after }) });
    const got = await call(`${base}/photos?${query}`);
    setPhotos((before) => ({ list: after ? [...before.list, ...got.photos] : got.photos, next: got.next }));
  };
  useEffect(() => {
    attempt(async () => {
      setInfo(await call(base));
      await page(null);
    });
  }, [name, version]);
  const finished = () => {
    again();
    reload();
  };
  const remove = (one) => attempt(async () => {
    await call(`${base}/photos/${encodeURIComponent(one.id)}`, { method: "DELETE" });
    say(`${one.name} removed`);
    finished();
  });
  const end = () => attempt(async () => {
    // eslint-disable-next-line no-alert
    if (!confirm(`Remove the gallery ${name} with ${plural(info.photos, "photo")}?`)) return;
    await call(base, { method: "DELETE" });
    await reload();
    location.hash = "#/galleries";
  });
  const search = ([file]) => attempt(async () => {
    setError("");
    setFound({ name: file.name, results: null });
    const form = new FormData();
    form.append("file", file, file.name);
    form.append("gallery", name);
    form.append("k", "24");
    const { results } = await call("/search", { method: "POST", form });
    setFound({ name: file.name, results });
    say(`${plural(results.length, "photo")} found`);
  });
  const total = upload.at === "Sending" ? upload.wanted : upload.files.length;
  const done = upload.at === "Sending" ? upload.sent + upload.failed.length : upload.hashed;
  return html`<main class="page" id="main">
    <p><a href="#/galleries">Galleries</a></p>
    <div class="title"><h1>${name}</h1>
      <p>${info && `${plural(info.photos, "photo")}${info.writable ? "" : ", read only"}`}</p>
      ${info?.writable && html`<button type="button" onClick=${end}>Remove the gallery</button>`}
    </div>
    ${error && html`<p class="failed" role="alert">${error}</p>`}
    <div class="pair">
      ${info?.writable && html`<${Drop} small label="Add photos" taken=${(files, others) => upload.busy || upload.run(files, others, finished)}>
        <p><strong>Add photos</strong> by dropping them or a folder. What is here already is not sent again.</p>
      <//>`}
      <${Drop} small multiple=${false} folder=${false} label="Choose a picture" taken=${search}>
        <p><strong>Search</strong> with a picture: drop it here.</p>
      <//>
    </div>
    ${upload.busy && html`<div class="run"><p><strong>${upload.at}</strong> <span>${done} of ${total}</span></p>
      <progress aria-label=${`${upload.at} photos`} max=${total || 1} value=${done}></progress></div>`}
    ${!upload.busy && upload.files.length > 0 && html`<p class="told">${upload.told}.</p>`}
    ${upload.failed.length > 0 && html`<ul class="problems">${upload.failed.map((one) => html`<li key=${one.name}>${one.message}</li>`)}</ul>`}
    ${found && html`<section aria-label="Found"><div class="title"><h2>Most like ${found.name}</h2>
      <button type="button" onClick=${() => setFound(null)}>Close</button></div>
      ${found.results ? html`<ul class="grid">${found.results.map((one) => html`<${Found} key=${one.id} one=${one} base=${base} />`)}</ul>` : html`<p>Looking …</p>`}
    </section>`}
    ${info?.problems?.length > 0 && html`<section class="panel"><h2>What is wrong with them</h2>
      <ul class="problems">${info.problems.map((one) => html`<li key=${one.name}><strong>${one.name}</strong>: ${one.message}</li>`)}</ul></section>`}
    <section aria-label="Photos"><ul class="grid">
      ${photos.list.map((one) => html`<li key=${one.id}>
        <${Picture} src=${`${base}/photos/${encodeURIComponent(one.id)}/thumbnail`} alt=${one.name} loading="lazy" />
        <span class="name">${one.name}</span>
        <span class="words">${one.width} × ${one.height}</span>
        ${one.problem && html`<span class="failed">${one.problem}</span>`}
        ${info?.writable && html`<button type="button" aria-label=${`Remove ${one.name}`} onClick=${() => remove(one)}>Remove</button>`}
      </li>`)}
    </ul></section>
    ${photos.next && html`<button type="button" onClick=${() => attempt(() => page(photos.next))}>More</button>`}
    ${info && !info.photos && html`<p class="lead">No photos yet.</p>`}
  </main>`;
}

function Found({ one, base }) {
  const [title] = verdict(one);
  return html`<li>
    <${Picture} src=${`${base}/photos/${encodeURIComponent(one.id)}/thumbnail`} alt=${one.name} loading="lazy" />
    <span class="name">${one.name}</span>
    <span class="words">${title} ${one.score?.toFixed(2)}</span>
  </li>`;
}

export function lastGallery(galleries) {
  const last = kept.get("gallery");
  return galleries.find((one) => one.name === last)?.name ?? galleries[0]?.name ?? "";
}
