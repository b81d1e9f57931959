// What every module of the page draws with: preact's elements and hooks, htm's templates, one live region.
import { Fragment, h, render } from "./third_party/preact.js";
import htm from "./third_party/htm.js";

export { Fragment, render };
export * from "./third_party/hooks.js";
export const html = htm.bind(h);

const hearers = new Set();

/** Say something to people who do not see it happen: the live region takes it over. */
export function say(text) {
  for (const hear of hearers) hear(text);
}

/** Call back with each text that is said, until the function that comes back is called. */
export function onSay(hear) {
  hearers.add(hear);
  return () => hearers.delete(hear);
}

/** A value that survives the tab, where the browser keeps any. */
export const kept = {
  get(key) {
    try {
      return localStorage.getItem(`rasr-${key}`);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(`rasr-${key}`, value);
    } catch {
      // Private windows may keep nothing; the page works without.
    }
  },
};

/** A name that no other has, also where the page did not come by https. */
export function unique() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
