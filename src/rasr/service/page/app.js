// The page: which view is shown, what is dropped anywhere, the token, the list of keys, the live region.
import { call, onTokenWanted } from "./api.js";
import * as batches from "./batch.js";
import { Drop } from "./files.js";
import * as galleries from "./galleries.js";
import { html, kept, onSay, render, useEffect, useRef, useState } from "./kit.js";
import { ALL, NONE, Photo } from "./photo.js";
import { Restore } from "./restore.js";
import { KEYS } from "./viewer.js";
import { plural } from "./words.js";

function route() {
  return location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
}

function App() {
  const [about, setAbout] = useState(null);
  const [list, setList] = useState([]);
  const [where, setWhere] = useState(route());
  const [photo, setPhoto] = useState(null);
  const [error, setError] = useState("");
  const current = useRef(null);
  const show = (next) => {
    current.current?.close();
    current.current = next;
    setPhoto(next);
  };
  const reload = async () => {
    const { galleries: found } = await call("/galleries");
    setList(found);
    return found;
  };

  useEffect(() => {
    Promise.all([call("/about"), call("/galleries")]).then(
      ([told, { galleries: found }]) => {
        setList(found);
        setAbout(told);
      },
      (failure) => setError(failure.message),
    );
    const moved = () => setWhere(route());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);

  // A folder given to 'rasr serve' is offered once it is indexed, which may be after the page was opened.
  useEffect(() => {
    if (!about || about.ready) return undefined;
    const look = async () => {
      const told = await call("/about").catch(() => ({ ...about }));
      if (told.ready) ready(await reload().catch(() => []));
      setAbout(told);
    };
    const timer = setTimeout(look, 1500);
    return () => clearTimeout(timer);
  }, [about]);
  /** Galleries have come: a photo that waits for them is looked for. */
  const ready = (found) => {
    const waiting = current.current;
    if (!found.length || !waiting || waiting.gallery || waiting.runs.length) return;
    waiting.choice = ALL;
    waiting.search(galleries.lastGallery(found));
  };

  const [view, ...rest] = where;
  useEffect(() => {
    if (view !== "photo" || !about || rest.join("/") === current.current?.address) return;
    setError("");
    const gallery = galleries.lastGallery(list);
    Photo.of(rest.map((one) => one.split("~")), { gallery }).then(
      (made) => {
        show(made);
        made.search(gallery);
      },
      (failure) => setError(failure.message),
    );
  }, [where.join("/"), about]);

  const taken = async (files, others) => {
    setError("");
    const gallery = galleries.lastGallery(await reload().catch(() => list));
    if (!files.length) return setError(`${plural(others, "file")} and no picture among them.`);
    if (files.length > 1) {
      const batch = batches.Batch.planned(files, others, gallery);
      location.hash = `#/batch/${batch.label}`;
      return undefined;
    }
    const made = new Photo(files[0], { gallery });
    made.choice = gallery ? ALL : NONE;
    show(made);
    made.search(gallery);
    location.hash = "#/photo/";
    return undefined;
  };
  useEffect(() => {
    if (photo) return photo.watch(() => kept.set("gallery", photo.gallery));
    return undefined;
  }, [photo]);

  let shown;
  if (!about) shown = html`<main class="page" id="main"><h1>RASR</h1><p>${error ? "" : "Loading …"}</p></main>`;
  else if (view === "galleries" && rest[0]) shown = html`<${galleries.Gallery} key=${rest[0]} name=${rest[0]} reload=${reload} />`;
  else if (view === "galleries") shown = html`<${galleries.Galleries} galleries=${list} reload=${reload} />`;
  else if (view === "batch" && rest[0]) shown = html`<${batches.BatchPage} key=${rest[0]} label=${rest[0]} about=${about} galleries=${list} />`;
  else if (view === "photo" && photo) {
    const another = () => (location.hash = "#/");
    shown = html`<${Restore} key=${photo.id} photo=${photo} about=${about} galleries=${list} another=${another} />`;
  } else shown = html`<${Start} taken=${taken} list=${list} ready=${about.ready} />`;

  return html`
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      const main = document.getElementById("main");
      main.tabIndex = -1;
      main.focus();
    }}>To the content</a>
    <header>
      <a class="brand" href="#/">RASR</a>
      <nav aria-label="Views">
        <a href="#/" aria-current=${view === "galleries" ? undefined : "page"}>Restore</a>
        <a href="#/galleries" aria-current=${view === "galleries" ? "page" : undefined}>Galleries</a>
      </nav>
      <${Keys} />
    </header>
    ${error && html`<p class="failed banner" role="alert">${error}</p>`}
    ${shown}
    <${Token} />
    <${Said} />
  `;
}

function Start({ taken, list, ready }) {
  const photos = list.reduce((sum, one) => sum + one.photos, 0);
  return html`<main class="page start" id="main">
    <h1>Restore a bad photo with your own photos as evidence</h1>
    <${Drop} taken=${taken}>
      <div class="pane" aria-hidden="true"><i></i><i></i></div>
      <p class="big">Drop a photo here, many, or a folder</p>
      <p>${!ready ? "The service is getting ready. Its galleries are there in a moment." : list.length ? `RASR looks for its place among your ${plural(photos, "photo")}.` : html`Without a <a href="#/galleries">gallery</a> of your good photos all detail is drawn.`}</p>
    <//>
    <p class="hint">Photos go to this service only. Where no photo of yours shows the place, detail is drawn: plausible, not evidence.</p>
    <${batches.Recent} />
  </main>`;
}

/** The list of keys, opened by its button or "?". */
function Keys() {
  const dialog = useRef(null);
  useEffect(() => {
    const pressed = (event) => {
      if (event.key !== "?" || /^(TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.type === "text") return;
      if (!document.querySelector("dialog[open]")) dialog.current.showModal();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
  return html`<button type="button" class="keys" onClick=${() => dialog.current.showModal()}>Keys <kbd>?</kbd></button>
    <dialog ref=${dialog} aria-labelledby="keys-title">
      <h2 id="keys-title">Keys</h2>
      <dl>${KEYS.map(([key, words]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${words}</dd></div>`)}</dl>
      <form method="dialog"><button class="primary">Close</button></form>
    </dialog>`;
}

/** Asks for the token when the service wants one. */
function Token() {
  const dialog = useRef(null);
  const answer = useRef(null);
  const [wrong, setWrong] = useState(false);
  useEffect(() => {
    onTokenWanted((tried) => {
      setWrong(tried);
      dialog.current.showModal();
      return new Promise((resolve) => (answer.current = resolve));
    });
  }, []);
  const given = (event) => {
    event.preventDefault();
    dialog.current.close();
    answer.current(event.currentTarget.elements.token.value.trim());
  };
  return html`<dialog ref=${dialog} aria-labelledby="token-title" onCancel=${(event) => event.preventDefault()}>
    <form onSubmit=${given}>
      <h2 id="token-title">This service asks for a token</h2>
      <input type="text" name="username" value="rasr" autocomplete="username" hidden />
      <label>Token <input type="password" name="token" autocomplete="current-password" required /></label>
      ${wrong && html`<p class="failed" role="alert">That was not it.</p>`}
      <p class="hint">It is kept until this tab is closed.</p>
      <button type="submit" class="primary">Go on</button>
    </form>
  </dialog>`;
}

/** The live region: what happens, for people who do not see it. */
function Said() {
  const [text, setText] = useState("");
  useEffect(() => onSay(setText), []);
  return html`<p class="said" role="status">${text}</p>`;
}

// A file that misses its place must not replace the page.
for (const event of ["dragover", "drop"]) addEventListener(event, (dropped) => dropped.preventDefault());
addEventListener("beforeunload", (event) => {
  if (batches.sending() || galleries.sending()) event.preventDefault();
});

render(html`<${App} />`, document.getElementById("app"));
