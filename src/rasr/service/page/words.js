// The page's words: verdicts, states, shares, sizes and times, each said in one place.

export const EVIDENCE = "detail from your photo";
export const CHANGED = "changed because of";
export const DRAWN = "drawn: plausible, not evidence";

const VERDICTS = {
  "same scene": ["Same scene", "shows this very place: its detail can be taken over"],
  "same kind": ["Same kind", "looks alike, but shows something else"],
  unrelated: ["Unrelated", "shows something else"],
  "not verified": ["Not verified", "compared point by point: this scene was not found in it"],
};

/** Title and explanation of a verdict. A search goes by looks alone: what it finds is not compared before it is used. */
export function verdict({ verdict, accepted }) {
  const alike = { true: "Similar, not compared yet", false: "Less similar, not compared yet" }[accepted];
  return VERDICTS[verdict] ?? [alike ?? "Not compared yet", "compared point by point when it is used"];
}

/** Legend of a finished job: one line a photo whose detail is in it, one a photo that a generator saw, then what is drawn. */
export function legend(job) {
  const lines = job.references
    .filter((one) => one.share > 0)
    .map((one) => ({
      key: one.index,
      colour: one.colour,
      share: one.share,
      words: EVIDENCE,
      name: one.name,
      reference: one,
    }));
  const drawn = job.drawn ?? Math.max(0, 1 - lines.reduce((sum, one) => sum + one.share, 0));
  const seen = job.references
    .filter((one) => one.changed > 0)
    .map((one) => ({ key: `seen-${one.index}`, colour: null, share: one.changed, words: CHANGED, name: one.name, reference: one, ofDrawn: true }));
  return [...lines, ...seen, { key: "drawn", colour: null, share: drawn, words: DRAWN, name: "", reference: null }];
}

export function percent(share) {
  const value = share * 100;
  return `${value > 0 && value < 1 ? "<1" : Math.round(value)} %`;
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

export function duration(seconds) {
  if (seconds < 1) return "less than a second";
  if (seconds < 90) return plural(Math.round(seconds), "second");
  if (seconds < 5400) return plural(Math.round(seconds / 60), "minute");
  return plural(Math.round(seconds / 3600), "hour");
}

export function size({ width, height }) {
  return `${width} × ${height}`;
}

/** What a job is at, in a sentence without its end. */
export function state(job) {
  switch (job.state) {
    case "queued":
      return job.position > 0 ? `Waiting: ${plural(job.position, "picture")} before this one` : "Waiting";
    case "running": {
      const { stage, done, total } = job.progress ?? {};
      const what = STAGES[stage] ?? stage ?? "Restoring";
      const where = total > 1 ? `${what}: ${done} of ${total}` : what;
      return job.eta_seconds == null ? where : `${where}, about ${duration(job.eta_seconds)} left`;
    }
    case "done":
      return job.seconds == null ? "Done" : `Done in ${duration(job.seconds)}`;
    case "failed":
      return job.error ?? "Failed";
    default:
      return "Cancelled";
  }
}
const STAGES = {
  tiles: "Tile",
  load: "Loading the model",
  read: "Reading",
  clean: "Cleaning, tile",
  search: "Looking for photos",
  "same scene": "Comparing photos",
  features: "Comparing photos",
  prepare: "Reading the references",
  restore: "Tile",
  colour: "Matching colours",
  save: "Saving",
};

/** Whether a job can still change. */
export function active(job) {
  return job.state === "queued" || job.state === "running";
}
