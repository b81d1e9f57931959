// Small parts that several views draw with.
import { picture } from "./api.js";
import { html, useEffect, useReducer, useState } from "./kit.js";

/** Draw again whenever the model changes. */
export function useModel(model) {
  const [, again] = useReducer((count) => count + 1, 0);
  useEffect(() => model?.watch(again), [model]);
  return model;
}

/** An image whose address may ask for the token. */
export function Picture({ src, alt, ...more }) {
  const [address, setAddress] = useState(null);
  useEffect(() => {
    let there = true;
    picture(src).then((found) => there && setAddress(found), () => {});
    return () => (there = false);
  }, [src]);
  return html`<img src=${address ?? ""} alt=${alt} ...${more} hidden=${!address} />`;
}

/** Address of a small picture of a reference. */
export function thumbnail(reference) {
  const { gallery, id } = reference;
  return gallery && id ? `/galleries/${encodeURIComponent(gallery)}/photos/${encodeURIComponent(id)}/thumbnail` : reference.picture;
}
