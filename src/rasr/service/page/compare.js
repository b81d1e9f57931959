// Two pictures in one place: OpenSeadragon's world with a layer left of the divider, one right of it, and evidence over both.
// Every layer is one unit wide, so pictures of any size lie on each other; a reference lies where its places say.
import { picture } from "./api.js";

const { Point, Rect } = window.OpenSeadragon;
const NEAREST_FROM = 2;
const STEP = Math.SQRT2;
const EVIDENCE_OPACITY = 0.5; // the service's layer covers in full where all detail is a photo's; the result must stay to be seen

function calm() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

// OpenSeadragon writes a style into the page unless it finds one; the page's policy would refuse it.
const style = document.createElementNS(null, "style"); // a name alone: in no namespace it styles nothing
style.setAttribute("data-openseadragon-mobile-css", "true");
document.head.append(style);

/** A viewer that answers to the page's keys alone. */
function open(host, label) {
  const viewer = window.OpenSeadragon({
    element: host,
    drawer: "canvas",
    showNavigationControl: false,
    preserveViewport: true,
    animationTime: calm() ? 0 : 0.35,
    springStiffness: 9,
    blendTime: 0,
    visibilityRatio: 0.25,
    minZoomImageRatio: 0.3,
    maxZoomPixelRatio: 32,
    zoomPerScroll: 1.25,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsPen: { clickToZoom: false, dblClickToZoom: true },
  });
  // A layer is one tile: the pixel by which tiles overlap, so that no seams show, would only stretch it.
  viewer.drawer.minimumOverlapRequired = () => false;
  viewer.addHandler("canvas-key", (event) => (event.preventDefaultAction = true));
  viewer.canvas.setAttribute("role", "application");
  viewer.canvas.setAttribute("aria-label", label);
  return viewer;
}

function load(viewer, source) {
  return new Promise((resolve, reject) =>
    viewer.addTiledImage({
      tileSource: { type: "image", url: source },
      x: 0,
      y: 0,
      width: 1,
      opacity: 0,
      preload: true,
      success: ({ item }) => resolve(item),
      error: ({ message }) => reject(new Error(message)),
    }),
  );
}

function ring() {
  const element = document.createElement("div");
  element.className = "ring";
  return element;
}

function mark(viewer, element, point) {
  viewer.removeOverlay(element);
  if (point) viewer.addOverlay({ element, location: new Point(point.x, point.y), placement: "CENTER", checkResize: false });
}

/** The main viewer. `changed` hears of zoom and place, `picked` of a click: {x, y} with the picture one unit wide, and the side. */
export class Compare {
  constructor(host, { changed, picked, failed }) {
    this.host = host;
    this.viewer = open(host, "Pictures. Arrow keys move them, plus and minus zoom, Enter looks up the middle.");
    this.items = new Map();
    this.wanted = {};
    this.shown = {};
    this.divider = 0.5;
    this.side = null;
    this.frame = null;
    this.ring = ring();
    this.changed = changed;
    this.failed = failed;
    for (const event of ["viewport-change", "resize", "animation-finish"]) {
      this.viewer.addHandler(event, () => this.#moved(event === "animation-finish"));
    }
    this.viewer.addHandler("canvas-click", (event) => {
      if (!event.quick) return;
      const point = this.viewer.viewport.pointFromPixel(event.position, true);
      picked({ x: point.x, y: point.y, side: this.#sideAt(event.position.x) });
    });
  }

  /** Show these layers ({key, src, box}, box as {x, y, width} or null); place and zoom stay. The frame gives the zoom's pixels. */
  show({ left, right, overlays, frame }) {
    this.wanted = { left, right, overlays };
    const first = !this.frame;
    this.frame = frame;
    for (const layer of [left, right, ...overlays]) {
      if (layer && !this.items.has(layer.src)) {
        const loading = picture(layer.src).then((source) => load(this.viewer, source));
        this.items.set(layer.src, { loading, item: null });
        loading.then(
          (item) => {
            this.items.get(layer.src).item = item;
            this.#arrange();
          },
          () => {
            this.items.delete(layer.src);
            this.failed(layer);
          },
        );
      }
    }
    if (first) this.fit(true);
    this.#arrange();
  }

  /** Forget all layers: another photo comes. */
  clear() {
    this.viewer.world.removeAll();
    this.items.clear();
    this.shown = {};
    this.frame = null;
    mark(this.viewer, this.ring, null);
  }

  setDivider(share) {
    this.divider = Math.min(1, Math.max(0, share));
    this.#clip();
  }

  /** Show one side alone ("left", "right"), or both again (null). */
  setSide(side) {
    this.side = side;
    this.#clip();
  }

  fit(now = false) {
    const { width, height } = this.frame ?? { width: 1, height: 1 };
    this.viewer.viewport.fitBounds(new Rect(0, 0, 1, height / width), now || calm());
  }

  /** Zoom to this many screen pixels for a pixel of the frame. */
  zoomTo(zoom) {
    this.viewer.viewport.zoomTo((zoom * this.frame.width) / this.#width(), undefined, calm());
    this.viewer.viewport.applyConstraints();
  }

  zoomBy(steps) {
    this.viewer.viewport.zoomBy(STEP ** steps, undefined, calm());
    this.viewer.viewport.applyConstraints();
  }

  /** Zoom by the wheel at a place of the page: where the divider's handle lies over the viewer. */
  wheel(event) {
    event.preventDefault();
    const { left, top } = this.host.getBoundingClientRect();
    const at = this.viewer.viewport.pointFromPixel(new Point(event.clientX - left, event.clientY - top), true);
    this.viewer.viewport.zoomBy(event.deltaY < 0 ? 1.25 : 0.8, at);
    this.viewer.viewport.applyConstraints();
  }

  pan(columns, rows) {
    const step = 60 / this.#width() / this.viewer.viewport.getZoom();
    this.viewer.viewport.panBy(new Point(columns * step, rows * step), calm());
    this.viewer.viewport.applyConstraints();
  }

  /** Middle of what is seen. */
  middle() {
    const { x, y } = this.viewer.viewport.getCenter(true);
    return { x, y, side: this.#sideAt(this.#width() / 2) };
  }

  /** Put the ring on a place, or take it away. */
  mark(point) {
    mark(this.viewer, this.ring, point);
  }

  /** Screen pixels for one unit of the world. */
  scale() {
    return this.viewer.viewport.getZoom(true) * this.#width();
  }

  destroy() {
    this.viewer.destroy();
  }

  #width() {
    return this.viewer.viewport.getContainerSize().x;
  }

  #sideAt(x) {
    return this.side ?? (x < this.divider * this.#width() ? "left" : "right");
  }

  #item(layer) {
    return layer ? this.items.get(layer.src)?.item : null;
  }

  /** Place what is loaded; a side that is still loading keeps what it showed. */
  #arrange() {
    for (const side of ["left", "right"]) {
      if (this.#item(this.wanted[side]) || !this.wanted[side]) this.shown[side] = this.wanted[side];
    }
    this.shown.overlays = (this.wanted.overlays ?? []).filter((layer) => this.#item(layer));
    const world = this.viewer.world;
    for (const side of ["left", "right"]) {
      const item = this.#item(this.shown[side]);
      if (!item) continue;
      const box = this.shown[side].box ?? this.#registered(item);
      item.setPosition(new Point(box.x, box.y), true);
      item.setWidth(box.width, true);
    }
    for (const layer of this.shown.overlays) world.setItemIndex(this.#item(layer), world.getItemCount() - 1);
    this.#clip();
    this.#moved(true);
    this.host.dataset.shown = [this.shown.left?.key, this.shown.right?.key, ...this.shown.overlays.map((one) => one.key)].join(" ");
  }

  /** A size rounded to whole pixels can be half a pixel too high: both stay centred. */
  #registered(item) {
    const size = item.getContentSize();
    const height = this.frame ? this.frame.height / this.frame.width : size.y / size.x;
    return { x: 0, y: (height - size.y / size.x) / 2, width: 1 };
  }

  /** Cut each layer at the divider. */
  #clip() {
    const viewport = this.viewer.viewport;
    if (!viewport) return;
    const at = { left: 1, right: 0 }[this.side] ?? this.divider;
    const x = viewport.pointFromPixel(new Point(at * this.#width(), 0), true).x;
    const used = new Map();
    const cut = (layer, side, opacity = 1) => {
      const item = this.#item(layer);
      if (!item) return;
      const bounds = item.getBoundsNoRotate(true);
      const { x: width, y: height } = item.getContentSize();
      const edge = Math.min(1, Math.max(0, (x - bounds.x) / bounds.width)) * width;
      const both = used.has(item) && used.get(item) !== side;
      used.set(item, side);
      if (both) item.setClip(null);
      else item.setClip(side === "left" ? new Rect(0, 0, edge, height) : new Rect(edge, 0, width - edge, height));
      item.setOpacity(both || (side === "left" ? edge > 0 : edge < width) ? opacity : 0);
    };
    cut(this.shown.left, "left");
    cut(this.shown.right, "right");
    for (const layer of this.shown.overlays ?? []) cut(layer, layer.side, EVIDENCE_OPACITY);
    for (const { item } of this.items.values()) if (item && !used.has(item)) item.setOpacity(0);
  }

  #moved(still) {
    if (!this.frame || !this.viewer.viewport) return;
    const zoom = this.scale() / this.frame.width;
    if (still || calm()) this.#snap(zoom);
    const smooth = zoom < NEAREST_FROM - 1e-6;
    if (smooth !== this.smooth) this.viewer.drawer.setImageSmoothingEnabled((this.smooth = smooth));
    this.#clip();
    Object.assign(this.host.dataset, { zoom: zoom.toFixed(6), smooth: String(smooth) });
    this.changed(zoom);
  }

  /** At whole zooms the picture's pixels lie on the screen's: nothing is interpolated by half a pixel. */
  #snap(zoom) {
    const ratio = window.devicePixelRatio || 1;
    if (zoom < 0.999 || Math.abs(zoom * ratio - Math.round(zoom * ratio)) > 1e-4) return;
    const viewport = this.viewer.viewport;
    const origin = viewport.pixelFromPoint(new Point(0, 0), true).times(ratio);
    const off = new Point(origin.x - Math.round(origin.x), origin.y - Math.round(origin.y)).divide(ratio);
    if (Math.hypot(off.x, off.y) > 1e-3) viewport.panBy(viewport.deltaPointsFromPixels(off, true), true);
  }
}

/** The linked viewer: one reference, and the place in it that matches. */
export class Reference {
  constructor(host) {
    this.viewer = open(host, "The reference");
    this.host = host;
    this.ring = ring();
    this.source = null;
  }

  /** Show another photo, from its whole. */
  async show(address, ratio) {
    if (this.source === address) return;
    this.source = address;
    const source = await picture(address);
    const item = await load(this.viewer, source);
    if (this.source !== address) return this.viewer.world.removeItem(item);
    while (this.viewer.world.getItemCount() > 1) this.viewer.world.removeItem(this.viewer.world.getItemAt(0));
    item.setOpacity(1);
    this.viewer.viewport.fitBounds(new Rect(0, 0, 1, ratio), true);
    mark(this.viewer, this.ring, null);
  }

  /** Go to a place (both 0 to 1 of the photo) at this many screen pixels for the photo's width, but never smaller than the whole. */
  go([x, y], scale, ratio) {
    const viewport = this.viewer.viewport;
    const zoom = Math.max(viewport.getHomeZoom(), scale / viewport.getContainerSize().x);
    const point = new Point(x, y * ratio);
    viewport.zoomTo(zoom, undefined, calm());
    viewport.panTo(point, calm());
    mark(this.viewer, this.ring, point);
    Object.assign(this.host.dataset, { x: x.toFixed(4), y: y.toFixed(4) });
  }

  unmark() {
    mark(this.viewer, this.ring, null);
    delete this.host.dataset.x;
  }

  destroy() {
    this.viewer.destroy();
  }
}
