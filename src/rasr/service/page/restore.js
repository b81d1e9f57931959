// The page of one photo: viewer, strip of references, evidence, downloads.
import { Evidence } from "./evidence.js";
import { ChooseOne } from "./files.js";
import { html, say, useEffect, useRef, useState } from "./kit.js";
import { Picture, thumbnail, useModel } from "./parts.js";
import { ALL, NONE } from "./photo.js";
import { Settings } from "./settings.js";
import { Viewer } from "./viewer.js";
import { active, plural, state, verdict } from "./words.js";

export function Restore({ photo, about, galleries, another }) {
  useModel(photo);
  const [place, setPlace] = useState(null);
  const middle = useRef(null);
  const right = photo.layer(photo.right);
  const left = photo.layer(photo.left);
  const run = (right?.run ?? left?.run) || null;
  useEffect(() => setPlace(null), [run?.job.id]);
  useEffect(() => {
    if (photo.address) history.replaceState(null, "", `#/photo/${photo.address}`);
  });
  const step = () => next(photo);
  return html`<main class="restore" id="main">
    <div class="title">
      <h1>${photo.name}</h1>
      <p>${photo.size ? `${photo.size.width} × ${photo.size.height} pixels` : ""}</p>
      <button type="button" onClick=${another}>Another photo</button>
    </div>
    <div class="columns">
      <div class="stage">
        <${Viewer} photo=${photo} run=${run} place=${place} setPlace=${setPlace} next=${step} middle=${middle} />
        <${Runs} photo=${photo} />
        <${Strip} photo=${photo} galleries=${galleries} ready=${about.ready} />
        <${Settings} about=${about} values=${photo.settings} set=${(values) => {
          photo.settings = values;
          photo.changed();
        }} />
      </div>
      <aside aria-label="About the result">
        <${Evidence} run=${run} place=${place} middle=${() => middle.current()} />
      </aside>
    </div>
  </main>`;
}

/** R: the next choice of the strip; its result where there is one. */
function next(photo) {
  const offers = photo.offers;
  const at = offers.findIndex((one) => one.key === photo.choice);
  const offer = offers[(at + 1) % offers.length];
  photo.choice = offer.key;
  const run = photo.runOf(offer.key);
  if (run?.job?.state === "done") {
    photo.right = `job:${run.job.id}`;
    say(`Result: ${offer.name}`);
  } else say(`${offer.name}. Enter restores with it.`);
  photo.changed();
  document.querySelector(`input[name="reference"][value="${CSS.escape(offer.key)}"]`)?.focus({ preventScroll: true });
}

/** What is being made, and what went wrong. */
function Runs({ photo }) {
  const shown = photo.runs.filter((run) => run.error || !run.job || active(run.job) || run.job.state === "failed");
  return html`<div class="runs">${shown.map((run) => {
    const name = photo.nameOf(run.choice);
    const failed = run.error ?? (run.job?.state === "failed" ? state(run.job) : null);
    if (failed) {
      return html`<div class="run failed" key=${photo.runs.indexOf(run)}>
        <p><strong>${name}:</strong> ${failed}</p>
        <button type="button" onClick=${() => {
          photo.dismiss(run);
          photo.restore(run.choice);
        }}>Try again</button>
        <button type="button" onClick=${() => photo.dismiss(run)}>Dismiss</button>
      </div>`;
    }
    const { done, total } = run.job?.progress ?? {};
    return html`<div class="run" key=${photo.runs.indexOf(run)}>
      <p><strong>${name}</strong> <span>${run.note || state(run.job)}</span></p>
      <progress aria-label=${`Restoration with ${name}`} max=${total || undefined} value=${total ? done : undefined}></progress>
      ${run.job && html`<button type="button" onClick=${() => photo.cancel(run)}>Cancel</button>`}
    </div>`;
  })}</div>`;
}

/** The references: one click restores. By keyboard, arrows choose and Enter restores. */
function Strip({ photo, galleries, ready }) {
  const { found } = photo;
  const strip = useRef(null);
  useEffect(() => {
    // Along the strip alone: the picture that is looked at must not move away.
    const card = strip.current?.querySelector("input:checked")?.closest(".card")?.getBoundingClientRect();
    const box = strip.current.getBoundingClientRect();
    if (card?.left < box.left || card?.right > box.right) strip.current.scrollLeft += card.left - box.left;
  }, [photo.choice]);
  return html`<section class="references">
    <div class="heading">
      <h2 id="strip-title">Restore with</h2>
      <label>Gallery
        <select value=${photo.gallery} onChange=${(event) => photo.search(event.currentTarget.value)}>
          <option value="">none</option>
          ${galleries.map((one) => html`<option key=${one.name} value=${one.name}>${one.name} (${plural(one.photos, "photo")})</option>`)}
        </select>
      </label>
      <${ChooseOne} taken=${(file) => photo.restore(photo.addOwn(file))}>Use another photo…<//>
    </div>
    <p class="hint" id="strip-hint">One click restores, and keeps what was made before. By keyboard: arrows choose, Enter restores.</p>
    ${found.state === "failed" && html`<p class="failed" role="alert">${found.message}</p>`}
    <div class="strip" role="radiogroup" aria-labelledby="strip-title" aria-describedby="strip-hint" ref=${strip}>
      ${photo.offers.map((offer) => html`<${Card} key=${offer.key} photo=${photo} offer=${offer} />`)}
      ${found.state === "busy" && [1, 2, 3].map((one) => html`<div class="card waiting" key=${one} aria-hidden="true"></div>`)}
    </div>
    ${!ready && html`<p class="hint">The service is getting ready. Its galleries are there in a moment.</p>`}
    ${found.state === "busy" && html`<p class="hint">Looking through ${photo.gallery} …</p>`}
  </section>`;
}

function Card({ photo, offer }) {
  const { key, name, reference } = offer;
  const run = photo.runOf(key);
  const ready = run?.job?.state === "done";
  const [title, words] = reference ? verdict(reference) : TOLD[key];
  const kind = (reference?.verdict ?? "not compared").replace(" ", "-");
  return html`<label
    class=${`card ${kind}`}
    title=${reference ? `${name}. ${reference.why ?? words}` : words}
    onClick=${(event) => event.detail > 0 && event.target.tagName !== "INPUT" && photo.restore(key)}
  >
    <input
      type="radio"
      name="reference"
      value=${key}
      checked=${photo.choice === key}
      onClick=${(event) => event.detail > 0 && event.clientX && photo.restore(key)}
      onChange=${() => {
        photo.choice = key;
        photo.changed();
      }}
      onKeyDown=${(event) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        photo.restore(key);
      }}
    />
    <span class="thumb">${reference ? html`<${Picture} src=${thumbnail(reference)} alt="" loading="lazy" />` : html`<span class=${`sign ${key}`}></span>`}</span>
    <span class="name">${name}</span>
    <span class="verdict">${title}${reference?.score == null ? "" : html` <span class="score">${reference.score.toFixed(2)}</span>`}</span>
    ${!reference && html`<span class="words">${words}</span>`}
    ${ready && html`<span class="ready">made</span>`}
  </label>`;
}

const TOLD = {
  [NONE]: ["Nothing but this picture", "all detail is drawn"],
  [ALL]: ["RASR looks at each", "every photo of the same scene gives its detail"],
};
