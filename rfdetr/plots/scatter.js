// A scatter to look into: `rfdetr.plots.scatter` writes a box with data as JSON, `drawing.js` is before it.
//
// Pointing at a point, or a slider along a line of steps, tells what the point is; buttons hide parts; a
// rectangle drawn with the mouse is enlarged.
const NEAR = 24; // px within which a point is meant

class Scatter {
  constructor(box) {
    this.box = box;
    this.data = JSON.parse(box.querySelector("script").textContent);
    this.layers = this.data.layers;
    this.hidden = new Set();
    this.view = null;
    this.build();
    new ResizeObserver(() => this.draw()).observe(this.chart);
  }

  build() {
    const { box } = this;
    box.querySelectorAll(":scope > :not(script)").forEach((old) => old.remove());
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.over = shape("svg", { "aria-hidden": "true" });
    this.chart = element("div", { class: "chart" }, this.canvas, this.over);
    this.told = element("p", { class: "told", role: "status", "aria-live": "polite" }, this.invitation());
    this.back = element("button", { type: "button", hidden: "" }, "show all");
    this.back.addEventListener("click", () => this.zoom(null));
    const bar = element("div", { class: "parts" }, ...this.layers.map((_, i) => this.button(i)), this.back);
    box.append(bar, this.chart, ...this.keys(), ...this.sliders(), this.told);
    this.listen();
  }

  invitation() {
    return "Point at a dot, or tap it, to read what it is; a rectangle drawn with the mouse is enlarged.";
  }

  /** A layer's name, sign and number of points; pressed while it is shown. */
  button(index) {
    const { label, colour, shape: kind, x, shades } = this.layers[index];
    const sign = element("i", { class: kind, "aria-hidden": "true" });
    sign.style.background = shades ? `linear-gradient(to right, ${shades.join()})` : colour;
    if (shades && shades.length < 2) sign.style.background = shades[0] ?? colour;
    const text = `${label} (${number(x.length, 0)})`;
    const made = element("button", { type: "button", "aria-pressed": "true" }, sign, text);
    made.addEventListener("click", () => {
      if (!this.hidden.delete(index)) this.hidden.add(index);
      made.setAttribute("aria-pressed", String(!this.hidden.has(index)));
      this.draw();
    });
    return made;
  }

  keys() {
    return this.layers.filter((layer) => layer.key).map(({ key }) => {
      const row = element("div", { class: "key" }, element("span", {}, key.label));
      for (const [value, colour] of key.entries) {
        const dot = element("i");
        dot.style.background = colour;
        row.append(element("span", {}, dot, String(value)));
      }
      return row;
    });
  }

  /** For keyboards and thumbs: a slider along every line of steps. */
  sliders() {
    return this.layers.flatMap((layer, index) => {
      if (layer.shape !== "step" || layer.x.length < 2) return [];
      const last = layer.x.length - 1;
      const input = element("input", { type: "range", min: 0, max: last, step: 1, value: last >> 1 });
      const tell = () => {
        const text = this.words(index, Number(input.value));
        input.setAttribute("aria-valuetext", text);
        this.choose({ index, i: Number(input.value) }, text);
      };
      input.addEventListener("input", tell);
      input.addEventListener("focus", tell);
      input.setAttribute("aria-valuetext", this.words(index, Number(input.value)));
      return [element("label", { class: "along" }, `along the ${layer.label}`, input)];
    });
  }

  /** What a point is, in a sentence. */
  words(index, i) {
    const { x, y } = this.data;
    const layer = this.layers[index];
    const about = Object.entries(layer.about).map(([name, values]) => `${name} ${values[i]}`.trim());
    const shown = (axis, value) => {
      const digits = value && Math.abs(value) < 10 ** -axis.digits ? 6 : axis.digits;
      return `${number(value, digits)}${axis.unit ? ` ${axis.unit}` : ""}`;
    };
    const place = [`${y.label} ${shown(y, layer.y[i])}`, shown(x, layer.x[i])];
    return `${layer.label}: ${[...about, ...place].join(", ")}`;
  }

  each(visit) {
    this.layers.forEach((layer, index) => {
      if (!this.hidden.has(index)) layer.x.forEach((_, i) => visit(layer, index, i));
    });
  }

  draw() {
    const [width, height] = [this.chart.clientWidth, this.chart.clientHeight];
    if (!width || !height) return;
    const { data } = this;
    const [xs, ys] = this.view ?? ["x", "y"].map((key) => this.layers.flatMap((layer) => layer[key]));
    this.x = scale(xs, data.x.log, MARGIN.left, width - MARGIN.right);
    this.y = scale(ys, data.y.log, height - MARGIN.bottom, MARGIN.top);
    const pen = penOf(this.canvas, width, height);
    drawAxes(pen, width, height, this.x, this.y, data.x.label, data.y.label);
    pen.save();
    pen.beginPath();
    pen.rect(MARGIN.left, 0, width - MARGIN.left - MARGIN.right, height - MARGIN.bottom);
    pen.clip();
    this.layers.forEach((layer, index) => {
      if (this.hidden.has(index)) return;
      if (layer.shape === "step") this.drawSteps(pen, layer);
      layer.x.forEach((_, i) => this.drawPoint(pen, layer, i));
    });
    pen.restore();
    this.mark();
  }

  drawSteps(pen, layer) {
    pen.strokeStyle = layer.colour;
    pen.lineWidth = 1.5;
    pen.beginPath();
    layer.x.forEach((value, i) => {
      if (i) pen.lineTo(this.x(value), this.y(layer.y[i - 1]));
      pen[i ? "lineTo" : "moveTo"](this.x(value), this.y(layer.y[i]));
    });
    pen.stroke();
  }

  drawPoint(pen, layer, i) {
    const [left, top] = [this.x(layer.x[i]), this.y(layer.y[i])];
    pen.fillStyle = layer.shades ? layer.shades[layer.shade[i]] : layer.colour;
    pen.globalAlpha = layer.shape === "dot" ? 0.65 : 1;
    pen.beginPath();
    if (layer.shape === "star") starPath(pen, left, top, 3.6, 9);
    else pen.arc(left, top, layer.shape === "step" ? 3 : 2.2, 0, 2 * Math.PI);
    pen.fill();
    pen.globalAlpha = 1;
    if (layer.shape === "star") {
      pen.strokeStyle = "#fff";
      pen.lineWidth = 1;
      pen.stroke();
    }
  }

  /** The point that is told about, and the rectangle that is being drawn. */
  mark() {
    const parts = [];
    if (this.chosen && !this.hidden.has(this.chosen.index)) {
      const layer = this.layers[this.chosen.index];
      const [cx, cy] = [this.x(layer.x[this.chosen.i]), this.y(layer.y[this.chosen.i])];
      parts.push(shape("circle", { class: "here", cx, cy, r: 7 }));
    }
    if (this.drag) {
      const [[x1, y1], [x2, y2]] = [this.drag.from, this.drag.to];
      const size = { width: Math.abs(x2 - x1), height: Math.abs(y2 - y1) };
      parts.push(shape("rect", { class: "zone", x: Math.min(x1, x2), y: Math.min(y1, y2), ...size }));
    }
    this.over.replaceChildren(...parts);
  }

  choose(chosen, text) {
    this.chosen = chosen;
    this.told.textContent = text;
    this.mark();
  }

  /** Tell about the visible point nearest to a place; of several at one place the uppermost. */
  point([left, top]) {
    let best = null;
    this.each((layer, index, i) => {
      const away = Math.hypot(this.x(layer.x[i]) - left, this.y(layer.y[i]) - top);
      if (away <= NEAR && (!best || away <= best.away)) best = { away, index, i };
    });
    if (best) this.choose(best, this.words(best.index, best.i));
  }

  listen() {
    const place = (event) => {
      const frame = this.chart.getBoundingClientRect();
      return [event.clientX - frame.left, event.clientY - frame.top];
    };
    this.chart.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" || event.button) return;
      event.preventDefault();
      this.chart.setPointerCapture(event.pointerId);
      this.drag = { from: place(event), to: place(event) };
    });
    this.chart.addEventListener("pointermove", (event) => {
      if (this.drag) this.drag.to = place(event);
      if (this.drag) this.mark();
      else this.point(place(event));
    });
    this.chart.addEventListener("pointerup", (event) => {
      const drag = this.drag;
      this.drag = null;
      const far = drag && drag.from.every((value, i) => Math.abs(value - drag.to[i]) > 8);
      if (far) this.zoom([0, 1].map((i) => [drag.from[i], drag.to[i]]));
      else this.point(place(event));
    });
    this.chart.addEventListener("pointercancel", () => {
      this.drag = null;
      this.mark();
    });
    this.chart.addEventListener("dblclick", () => this.zoom(null));
  }

  /** Enlarge a rectangle given in pixels, or show all. */
  zoom(pixels) {
    this.view = pixels && [pixels[0].map(this.x.back), pixels[1].map(this.y.back)];
    this.back.hidden = !this.view;
    this.draw();
  }
}

begin("scatter", Scatter);
