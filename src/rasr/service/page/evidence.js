// The evidence of a result: shares and legend, the place in the photo, what can be taken along.
import { download } from "./api.js";
import { Reference } from "./compare.js";
import { html, say, useEffect, useLayoutEffect, useRef, useState } from "./kit.js";
import { CHANGED, DRAWN, EVIDENCE, legend, percent } from "./words.js";

export function Evidence({ run, place, middle }) {
  if (!run) {
    return html`<section class="panel">
      <h2>Evidence</h2>
      <p>Choose a reference. You will see which detail of the result is from which of your photos, and what is drawn.</p>
    </section>`;
  }
  const { job } = run;
  const lines = legend(job);
  const nothing = lines.length === 1;
  return html`<div class="about"><section class="panel evidence" aria-label="Evidence">
      <h2>Evidence</h2>
      <div class="bar" aria-hidden="true">
        ${lines.filter((line) => !line.ofDrawn).map((line) => html`<span key=${line.key} class=${line.colour ? "" : "drawn"} style=${{ flexGrow: line.share, background: line.colour ?? undefined }}></span>`)}
      </div>
      <ul class="legend">
        ${lines.map((line) => html`<li key=${line.key}>
          <span class=${`swatch ${line.colour ? "" : "drawn"}`} style=${{ background: line.colour ?? undefined }}></span>
          <span class="share">${percent(line.share)}</span>
          <span>${line.words}${line.name && html` <strong>${line.name}</strong>`}</span>
        </li>`)}
      </ul>
      ${nothing && html`<p class="hint">Nothing in this result is from a photo.</p>`}
      <${Refused} job=${job} />
    </section>
    ${run.places && html`<${Linked} key=${job.id} run=${run} place=${place} middle=${middle} />`}
    <${Take} run=${run} />
  </div>`;
}

/** Photos that were looked at and changed nothing, and why. */
function Refused({ job }) {
  const refused = job.references.filter((one) => !(one.share > 0 || one.changed > 0));
  if (!refused.length) return null;
  return html`<details>
    <summary>Looked at, and not used (${refused.length})</summary>
    <ul class="refused">${refused.map((one) => html`<li key=${one.index}><strong>${one.name}</strong>: ${one.verdict}. ${one.why}</li>`)}</ul>
  </details>`;
}

/** The second viewer: a place of the result, in the photo that gave it. */
function Linked({ run, place, middle }) {
  const host = useRef(null);
  const viewer = useRef(null);
  const { job, places } = run;
  const giving = job.references.filter((one) => one.share > 0);
  const [wanted, setWanted] = useState(giving[0]?.index);
  const found = place ? places.of(place) : [];
  const index = found.length && !found.includes(wanted) ? found[0] : wanted;
  const one = job.references[index];
  const point = place && found.length ? places.at(index, place) : null;
  useLayoutEffect(() => {
    viewer.current = new Reference(host.current);
    return () => viewer.current.destroy();
  }, []);
  useEffect(() => {
    const ratio = one.height / one.width;
    viewer.current.show(one.picture, ratio).then(() => {
      if (point) viewer.current.go(point, place.scale * (places.box(index)?.width ?? 1), ratio);
      else viewer.current.unmark();
    }, () => say(`${one.name} could not be shown.`));
  }, [index, place]);
  const words = one.verdict === "same scene" ? EVIDENCE : CHANGED;
  const told = point ? html`Here: ${words} <strong>${one.name}</strong>` : place ? `Here: ${DRAWN}` : "Click in the result: its place in the photo is shown here.";
  useEffect(() => {
    if (place) say(point ? `Here: ${words} ${one.name}` : `Here: ${DRAWN}`);
  }, [place]);
  return html`<section class="panel linked" aria-label="The place in the photo">
    <h2>In the photo</h2>
    ${giving.length > 1 && html`<label>Photo
      <select value=${index} onChange=${(event) => setWanted(Number(event.currentTarget.value))}>
        ${giving.map((each) => html`<option key=${each.index} value=${each.index}>${each.name}</option>`)}
      </select></label>`}
    <div class="osd small" ref=${host}></div>
    <p class="here">${told}</p>
    <button type="button" onClick=${middle} title="Enter, when the picture has the focus">Look up the middle</button>
  </section>`;
}

/** Downloads, and the command that makes the same file. */
function Take({ run }) {
  const { job } = run;
  const base = `/jobs/${job.id}`;
  const stem = job.result.name.replace(/\.[^.]*$/, "");
  const command = useRef(null);
  const [copied, setCopied] = useState(false);
  const save = (address, name) => () => download(address, name).catch((error) => say(error.message));
  const settings = () => {
    const told = { command: job.command, settings: job.settings, references: job.references, drawn: job.drawn };
    const address = URL.createObjectURL(new Blob([JSON.stringify(told, null, 2)], { type: "application/json" }));
    download(address, `${stem}.json`).then(() => setTimeout(() => URL.revokeObjectURL(address), 10_000));
  };
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(job.command);
    } catch {
      getSelection().selectAllChildren(command.current);
      document.execCommand("copy"); // where the page came by http from another machine
    }
    setCopied(true);
    say("Command copied");
    setTimeout(() => setCopied(false), 2000);
  };
  return html`<section class="panel take" aria-label="Take along">
    <h2>Take along</h2>
    <div class="buttons">
      <button type="button" class="primary" onClick=${save(`${base}/result`, job.result.name)}>Download the result</button>
      <button type="button" onClick=${save(`${base}/evidence.png`, `${stem}.evidence.png`)}>Evidence map</button>
      <button type="button" onClick=${save(`${base}/report`, `${stem}.report.html`)}>Report</button>
      <button type="button" onClick=${settings}>Settings</button>
    </div>
    <h3 id="command-title">The same on the command line</h3>
    <pre tabindex="0" role="region" aria-labelledby="command-title"><code ref=${command}>${job.command}</code></pre>
    <button type="button" onClick=${copy}>${copied ? "Copied" : "Copy"}</button>
  </section>`;
}
