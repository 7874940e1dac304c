// A small line chart of the last minutes, drawn at the size of its place and read by pointer. Colours come from the style sheet.

import { h, s } from "./dom.js";
import { clock, seconds } from "./format.js";

const HEIGHT = 190;
const EDGE = { top: 10, right: 12, bottom: 24, left: 54 };
const STEPS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400];

/** Chart in a place: `update({ series: [{ name, kind, points: [[at, value]] }], now, window, gap })`, times in seconds. */
export class Chart {
  constructor(place, title) {
    this.title = title;
    this.legend = h("div", { class: "legend" });
    this.svg = s("svg", { role: "img", class: "plot" });
    place.replaceChildren(this.legend, this.svg);
    this.place = place;
    this.svg.addEventListener("pointermove", (event) => this.#read(event));
    this.svg.addEventListener("pointerleave", () => this.#read(null));
    new ResizeObserver(() => this.#draw()).observe(place);
  }

  update(data) {
    this.data = data;
    this.#draw();
  }

  #draw() {
    const width = Math.floor(this.place.clientWidth);
    if (!this.data || width < 80) return;
    const { series, now, window } = this.data;
    const highest = Math.max(0, ...series.flatMap(({ points }) => points.map(([, value]) => value)));
    const step = STEPS.find((each) => each * 4 >= highest) ?? Math.ceil(highest / 4 / 86400) * 86400;
    const top = step * Math.max(2, Math.ceil(highest / step + 0.15));
    const inner = { width: width - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom };
    this.x = (at) => EDGE.left + (1 - (now - at) / window) * inner.width;
    this.y = (value) => EDGE.top + (1 - value / top) * inner.height;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", HEIGHT);
    this.svg.setAttribute("aria-label", this.#label());
    this.cross = s("g", { class: "cross" });
    this.svg.replaceChildren(...this.#grid(top, step, width), ...series.flatMap((each) => this.#line(each)), this.cross);
    if (!series.some(({ points }) => points.length)) this.svg.append(this.#nothing(width));
    this.#tell(null);
  }

  #grid(top, step, width) {
    const lines = [];
    for (let value = 0; value <= top + step / 2; value += step) {
      const y = Math.round(this.y(value)) + 0.5;
      lines.push(s("line", { class: value ? "rule" : "base", x1: EDGE.left, x2: width - EDGE.right, y1: y, y2: y }));
      lines.push(s("text", { class: "tick", x: EDGE.left - 8, y: y + 4, "text-anchor": "end" }, value ? seconds(value) : "0"));
    }
    const { now, window } = this.data;
    const parts = window % 180 ? 2 : 3;
    for (let part = 0; part <= parts; part += 1) {
      const minutes = (window * part) / parts / 60;
      const anchor = part === 0 ? "end" : part === parts ? "start" : "middle";
      const text = part ? `${minutes} min${width > 420 ? " ago" : ""}` : "now";
      lines.push(s("text", { class: "tick", x: this.x(now - minutes * 60), y: HEIGHT - 6, "text-anchor": anchor }, text));
    }
    return lines;
  }

  #line({ kind, points }) {
    const runs = [];
    for (const point of points) {
      const last = runs.at(-1)?.at(-1);
      if (last && point[0] - last[0] <= this.data.gap) runs.at(-1).push(point);
      else runs.push([point]);
    }
    const place = ([at, value]) => `${this.x(at).toFixed(1)},${this.y(value).toFixed(1)}`;
    const drawn = runs.filter((run) => run.length > 1).flatMap((run) => {
      const path = run.map(place).join("L");
      const [first, last] = [this.x(run[0][0]), this.x(run.at(-1)[0])].map((x) => x.toFixed(1));
      const floor = this.y(0).toFixed(1);
      return [s("path", { class: `area ${kind}`, d: `M${first},${floor}L${path}L${last},${floor}Z` }),
        s("path", { class: `line ${kind}`, d: `M${path}` })];
    });
    const alone = runs.filter((run) => run.length === 1).map(([[at, value]]) =>
      s("circle", { class: `spot ${kind}`, cx: this.x(at), cy: this.y(value), r: 2.5 }));
    const end = points.at(-1);
    if (end) alone.push(s("circle", { class: `spot ${kind}`, cx: this.x(end[0]), cy: this.y(end[1]), r: 3 }));
    return [...drawn, ...alone];
  }

  #nothing(width) {
    return s("text", { class: "nothing", x: (width + EDGE.left) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, this.data.nothing);
  }

  #read(event) {
    if (!this.data || !this.x) return;
    const points = this.data.series[0].points;
    if (!event || !points.length) {
      this.cross.replaceChildren();
      this.#tell(null);
      return;
    }
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const nearest = points.reduce((best, point) => (Math.abs(this.x(point[0]) - x) < Math.abs(this.x(best[0]) - x) ? point : best));
    const at = this.x(nearest[0]);
    this.cross.replaceChildren(s("line", { x1: at, x2: at, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
    this.#tell(nearest[0]);
  }

  /** The legend, with the figures at a moment, or the last ones. */
  #tell(at) {
    const rows = this.data.series.map(({ name, kind, points }) => {
      const point = at === null ? points.at(-1) : points.find(([when]) => when === at);
      return h("span", { class: `key ${kind}` }, h("i", {}), name, h("b", {}, point ? seconds(point[1]) : "–"));
    });
    const last = at ?? this.data.series[0].points.at(-1)?.[0];
    this.legend.replaceChildren(...rows, h("span", { class: "at" }, last ? clock(last) : ""));
  }

  #label() {
    const figures = this.data.series.map(({ name, points }) => `${name} ${points.length ? seconds(points.at(-1)[1]) : "unknown"}`);
    return `${this.title} over the last ${Math.round(this.data.window / 60)} minutes. Last: ${figures.join(", ")}.`;
  }
}
