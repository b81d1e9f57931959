// Files that a person chooses or drops: folders walked whole, what is no picture told apart, hashes.
import { html, useRef, useState } from "./kit.js";

const PICTURE = /\.(jpe?g|png|webp|tiff?|heic|heif|bmp|gif|avif)$/i;

function isPicture(file) {
  return file.type.startsWith("image/") || PICTURE.test(file.name);
}

async function walk(entry, found) {
  if (entry.isFile) {
    found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
  } else {
    const reader = entry.createReader();
    for (;;) {
      // At most a hundred at a time: asked again until there are none.
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) break;
      for (const one of some) await walk(one, found);
    }
  }
}

async function droppedFiles(transfer) {
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return Array.from(transfer.files);
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

function sorted(files) {
  const shown = files.filter((file) => !file.name.startsWith("."));
  const pictures = shown.filter(isPicture);
  pictures.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return { pictures, others: shown.length - pictures.length };
}

/** A place to drop photos or a folder on, with the buttons that do the same. `taken` gets pictures and how many others. */
export function Drop({ taken, children, folder = true, multiple = true, small = false, label = "Choose photos" }) {
  const [over, setOver] = useState(false);
  const chooser = useRef(null);
  const folders = useRef(null);
  const give = (files) => {
    const { pictures, others } = sorted(files);
    if (pictures.length || others) taken(multiple ? pictures : pictures.slice(0, 1), others);
  };
  const chosen = (event) => {
    give(Array.from(event.currentTarget.files));
    event.currentTarget.value = "";
  };
  const enter = (event) => {
    event.preventDefault();
    setOver(true);
  };
  return html`<div
    class=${`drop ${over ? "over" : ""} ${small ? "small" : ""}`}
    onDragEnter=${enter}
    onDragOver=${enter}
    onDragLeave=${(event) => event.currentTarget.contains(event.relatedTarget) || setOver(false)}
    onDrop=${async (event) => {
      event.preventDefault();
      event.stopPropagation();
      setOver(false);
      give(await droppedFiles(event.dataTransfer));
    }}
  >
    ${children}
    <div class="buttons">
      <button type="button" class="primary" onClick=${() => chooser.current.click()}>${label}</button>
      ${folder && html`<button type="button" onClick=${() => folders.current.click()}>Choose a folder</button>`}
    </div>
    <input ref=${chooser} type="file" accept="image/*,.tif,.tiff,.heic,.heif" multiple=${multiple} hidden onChange=${chosen} />
    ${folder && html`<input ref=${folders} type="file" webkitdirectory multiple hidden onChange=${chosen} />`}
  </div>`;
}

/** A button that opens the chooser for one picture. */
export function ChooseOne({ taken, children, ...more }) {
  const chooser = useRef(null);
  return html`<button type="button" ...${more} onClick=${() => chooser.current.click()}>${children}</button>
    <input
      ref=${chooser}
      type="file"
      accept="image/*,.tif,.tiff,.heic,.heif"
      hidden
      onChange=${(event) => {
        const [file] = event.currentTarget.files;
        event.currentTarget.value = "";
        if (file) taken(file);
      }}
    />`;
}

/** SHA-256 of a file as hex, or null where the browser computes none (pages that came by http from another machine). */
export async function hashOf(file) {
  if (!crypto.subtle) return null;
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
