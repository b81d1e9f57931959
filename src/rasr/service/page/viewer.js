// The viewer with its controls and keys: two sides, divider, zoom, blink, evidence.
import { download } from "./api.js";
import { Compare } from "./compare.js";
import { html, say, useEffect, useLayoutEffect, useRef, useState } from "./kit.js";

export const KEYS = [
  ["1", "one pixel of the picture on one of the screen"],
  ["0", "the whole picture"],
  ["+ −", "zoom in, zoom out"],
  ["← → ↑ ↓", "move the picture, or the divider when it has the focus"],
  ["[ ]", "divider to the left, to the right"],
  ["R", "next reference"],
  ["E", "evidence on and off"],
  ["Space", "blink: one side, then the other"],
  ["Enter", "look up the middle of the picture in its photo"],
  ["D", "download the result"],
  ["?", "this list"],
];

function labelOf(layer) {
  return layer.name ? `${layer.kind} · ${layer.name}` : layer.kind;
}

export function Viewer({ photo, run, place, setPlace, next, middle }) {
  const host = useRef(null);
  const range = useRef(null);
  const compare = useRef(null);
  const [zoom, setZoom] = useState(1);
  const [divider, setDivider] = useState(50);
  const [side, setSide] = useState(null);
  const [evidence, setEvidence] = useState(true);
  const layers = photo.layers;
  const left = photo.layer(photo.left) ?? layers[0];
  const right = photo.layer(photo.right) ?? layers[0];
  const now = useRef({});
  Object.assign(now.current, { setPlace, divider, side, evidence });

  const two = left && right && left.key !== right.key;
  useLayoutEffect(() => {
    const made = new Compare(host.current, {
      changed: (value) => setZoom(Math.round(value * 100) / 100),
      picked: (point) => now.current.setPlace({ ...point, scale: made.scale() }),
      failed: (layer) => say(`${labelOf(layer)} could not be shown.`),
    });
    compare.current = made;
    return () => made.destroy();
  }, [photo]);

  const frame = photo.frame;
  const overlays = evidence
    ? [["left", left], ["right", right]].filter(([, one]) => one?.evidence).map(([at, one]) => ({ ...one.evidence, side: at }))
    : [];
  if (left?.key === right?.key) overlays.splice(1);
  const drawn = JSON.stringify([left, right, ...overlays, frame].map((one) => one && [one.key, one.src, one.side, one.box, one.width]));
  useEffect(() => {
    if (frame && left) compare.current.show({ left, right, overlays, frame });
  }, [photo, drawn]);
  useEffect(() => compare.current.setDivider(divider / 100), [divider]);
  useEffect(() => compare.current.setSide(side), [side]);
  useEffect(() => compare.current.mark(place), [place]);
  useEffect(() => {
    // Preact's wheel handlers may be passive; this one keeps the page from scrolling.
    const wheel = (event) => compare.current.wheel(event);
    range.current.addEventListener("wheel", wheel, { passive: false });
    return () => range.current?.removeEventListener("wheel", wheel);
  }, []);

  // Keys can come faster than the page is drawn: what they change is read from where it is noted at once.
  const move = (value) => {
    setSide((now.current.side = null));
    setDivider((now.current.divider = Math.min(100, Math.max(0, value))));
  };
  const blink = () => {
    if (!two) return;
    const shown = now.current.side === "left" ? "right" : "left";
    setSide((now.current.side = shown));
    say(labelOf(shown === "left" ? left : right));
  };
  const toggle = () => {
    setEvidence((now.current.evidence = !now.current.evidence));
    say(now.current.evidence ? "Evidence shown" : "Evidence hidden");
  };
  const save = () => run && download(`/jobs/${run.job.id}/result`, run.job.result.name);
  middle.current = () => setPlace({ ...compare.current.middle(), scale: compare.current.scale() });

  const act = {
    1: () => compare.current.zoomTo(1),
    0: () => compare.current.fit(),
    "+": () => compare.current.zoomBy(1),
    "=": () => compare.current.zoomBy(1),
    "-": () => compare.current.zoomBy(-1),
    "−": () => compare.current.zoomBy(-1),
    "[": () => move(now.current.divider - 5),
    "]": () => move(now.current.divider + 5),
    r: next,
    e: toggle,
    " ": blink,
    d: save,
    Escape: () => setSide(null),
  };
  const pans = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
      const { target } = event;
      const type = target.tagName === "INPUT" ? target.type : target.tagName;
      if (/^(text|search|number|password|TEXTAREA|SELECT)$/.test(type)) return;
      if (event.key === " " && /^(BUTTON|A|SUMMARY|radio|checkbox)$/.test(type)) return;
      const inside = host.current.contains(target);
      let what = act[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (inside && pans[event.key]) what = () => compare.current.pan(...pans[event.key]);
      if (inside && event.key === "Enter") what = middle.current;
      if (!what) return;
      event.preventDefault();
      what();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  });

  const choose = (at) => (event) => {
    photo[at] = event.currentTarget.value;
    setSide(null);
    photo.changed();
  };
  const share = Math.round(divider);
  const hasEvidence = Boolean(left?.evidence || right?.evidence);
  return html`<section class="viewer" aria-label="Comparison">
    <div class=${`canvas ${two ? "" : "single"} ${side ? "blinking" : ""}`}>
      <div class="osd" ref=${host}></div>
      ${two && side !== "right" && html`<p class="chip left"><${Chip} layer=${left} frame=${frame} zoom=${zoom} /></p>`}
      ${right && side !== "left" && html`<p class="chip right"><${Chip} layer=${right} frame=${frame} zoom=${zoom} /></p>`}
      ${photo.unseen && html`<p class="unseen">This browser shows no pictures of this kind. You will see it as soon as RASR has read it.</p>`}
      <input
        class="divider"
        type="range"
        min="0"
        max="100"
        step="any"
        value=${divider}
        ref=${range}
        hidden=${!two}
        aria-label="Divider between the two pictures"
        aria-valuetext=${two ? `${share} % ${labelOf(left)}, ${100 - share} % ${labelOf(right)}` : null}
        onInput=${(event) => move(Number(event.currentTarget.value))}
      />
    </div>
    <div class="controls">
      <label class="side"><span>Left of the divider</span><${Sides} layers=${layers} value=${left?.key} change=${choose("left")} /></label>
      <label class="side"><span>Right of the divider</span><${Sides} layers=${layers} value=${right?.key} change=${choose("right")} /></label>
      <div class="tools" role="group" aria-label="View">
        <button type="button" onClick=${act["-"]} aria-label="Zoom out">−</button>
        <output class="zoom" aria-label="Zoom">${Math.round(zoom * 100)} %</output>
        <button type="button" onClick=${act["+"]} aria-label="Zoom in">+</button>
        <button type="button" onClick=${act[1]} title="1">1:1</button>
        <button type="button" onClick=${act[0]} title="0">Fit</button>
        <button type="button" onClick=${blink} disabled=${!two} aria-pressed=${String(Boolean(side))} title="Space">Blink</button>
        <button type="button" class="evidence-switch" onClick=${toggle} disabled=${!hasEvidence} aria-pressed=${String(evidence && hasEvidence)} title="E">Evidence</button>
      </div>
    </div>
  </section>`;
}

/** What a side shows, and how large its own pixels are. */
function Chip({ layer, frame, zoom }) {
  const own = layer.size && frame ? (zoom * frame.width * (layer.box?.width ?? 1)) / layer.size.width : null;
  return html`<strong>${labelOf(layer)}</strong>${layer.size && html`<span>${layer.size.width} × ${layer.size.height} · ${Math.round(own * 100)} %</span>`}`;
}

function Sides({ layers, value, change }) {
  return html`<select value=${value} onChange=${change}>
    ${layers.map((one) => html`<option key=${one.key} value=${one.key} selected=${one.key === value}>${labelOf(one)}</option>`)}
  </select>`;
}
