// Where a place of the result is in a photo, from the evidence that the service gives for each cell.

/** Evidence of a job. A place of the result is {x, y} with the result one unit wide; one of a photo is [x, y], each 0 to 1. */
export class Places {
  constructor(evidence, job) {
    Object.assign(this, evidence);
    this.job = job;
    this.boxes = new Map(this.references.map((one) => [one.index, this.#fitted(one)]));
  }

  /** Place in a photo of a place of the result, or null. */
  at(index, { x, y }) {
    const { width } = this.job.result;
    const column = Math.floor((x * width) / this.cell);
    const row = Math.floor((y * width) / this.cell);
    if (column < 0 || row < 0 || column >= this.columns || row >= this.rows) return null;
    const places = this.references.find((one) => one.index === index)?.places;
    const found = places?.[row * this.columns + column];
    const box = this.boxes.get(index);
    if (!found || !box) return found ?? null;
    // From the cell's middle on to the very place, at the scale at which the photo lies on the result.
    const middle = this.#middle(row * this.columns + column);
    return [found[0] + (x - middle[0]) / box.width, found[1] + (y - middle[1]) / box.width / this.#ratio(index)];
  }

  /** Indexes of the photos that give something at a place, the one with the larger share first. */
  of(point) {
    const share = (one) => this.job.references[one.index].share;
    const found = this.references.filter((one) => this.at(one.index, point));
    return found.sort((a, b) => share(b) - share(a)).map((one) => one.index);
  }

  /** Where a photo lies on the result, {x, y, width}; null where it is turned or nothing is known. */
  box(index) {
    return this.boxes.get(index) ?? null;
  }

  #ratio(index) {
    const { width, height } = this.job.references[index];
    return height / width;
  }

  /** Middle of a cell; those at the edges may be cut. */
  #middle(number) {
    const { width, height } = this.job.result;
    const [left, top] = [(number % this.columns) * this.cell, Math.floor(number / this.columns) * this.cell];
    return [(left + Math.min(left + this.cell, width)) / 2 / width, (top + Math.min(top + this.cell, height)) / 2 / width];
  }

  /** Least squares of a scale and a shift from the photo's places onto the result's. */
  #fitted({ index, places }) {
    const ratio = this.#ratio(index);
    const pairs = [];
    places?.forEach((place, number) => place && pairs.push([place[0], place[1] * ratio, ...this.#middle(number)]));
    if (pairs.length < 4) return null;
    const [u, v, x, y] = [0, 1, 2, 3].map((axis) => pairs.reduce((sum, pair) => sum + pair[axis], 0) / pairs.length);
    let across = 0;
    let spread = 0;
    for (const pair of pairs) {
      across += (pair[0] - u) * (pair[2] - x) + (pair[1] - v) * (pair[3] - y);
      spread += (pair[0] - u) ** 2 + (pair[1] - v) ** 2;
    }
    const width = across / spread;
    return width > 0.05 && width < 20 ? { x: x - u * width, y: y - v * width, width } : null;
  }
}
