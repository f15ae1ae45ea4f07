// The explorer of sub-networks: five sliders, a read-out, a scatter in which the chosen network moves.
//
// `rfdetr.plots.explorer` writes a box for each explorer, <div class="nas-explorer" id="...">, with data as
// JSON. A column of numbers has the shape of the grid of knobs, with 1 for a knob that it does not depend on.
// The state is in the address (?ID=640-16-2-4-300#ID). No network, no library: `drawing.js` comes before it.
const counted = (count, noun) => `${number(count, 0)} ${noun}${count === 1 ? "" : "s"}`;

class Explorer {
  constructor(box) {
    this.box = box;
    this.data = JSON.parse(box.querySelector("script").textContent);
    this.axes = this.data.axes;
    this.active = 0;
    this.cells = [];
    const sizes = this.axes.map((axis) => axis.values.length);
    const fill = (at) =>
      at.length === sizes.length
        ? this.cells.push(at)
        : this.axes[at.length].values.forEach((_, i) => fill([...at, i]));
    fill([]);
    this.xs = this.cells.map((at) => this.value(this.data.x.column, at));
    this.ys = this.cells.map((at) => this.value(this.data.y.column, at));
    this.at = this.fromAddress() ?? this.data.start;
    this.build();
    this.update();
    new ResizeObserver(() => this.drawCloud()).observe(this.chart);
  }

  /** The number of a column at a cell of the grid. */
  value(column, at) {
    const { shape: sizes, data } = this.data.columns[column];
    let index = 0;
    sizes.forEach((size, axis) => (index = index * size + (size === 1 ? 0 : at[axis])));
    return data[index];
  }

  knob(key, at = this.at) {
    const axis = this.axes.findIndex((one) => one.key === key);
    return this.axes[axis].values[at[axis]];
  }

  fromAddress() {
    const text = new URLSearchParams(location.search).get(this.box.id);
    const values = (text ?? "").split("-").map(Number);
    const at = this.axes.map((axis, i) => axis.values.indexOf(values[i]));
    return values.length === this.axes.length && at.every((i) => i >= 0) ? at : null;
  }

  /** Some browsers refuse many changes of the address in a short time, so it waits for a pause. */
  toAddress() {
    clearTimeout(this.pending);
    this.pending = setTimeout(() => {
      const address = new URL(location.href);
      address.searchParams.set(this.box.id, this.axes.map((a) => this.knob(a.key)).join("-"));
      address.hash = this.box.id;
      try {
        history.replaceState(history.state, "", address);
      } catch {
        // A page inside a notebook has no address of its own.
      }
    }, 150);
  }

  build() {
    const { box } = this;
    box.querySelectorAll(":scope > :not(script)").forEach((old) => old.remove());
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.front = shape("svg", { role: "img", "aria-label": this.data.alt });
    this.chart = element("div", { class: "chart" }, this.canvas, this.front);
    this.chart.addEventListener("click", (event) => this.pick(event));
    this.sliders = this.axes.map((axis, i) => this.slider(axis, i));
    this.sentence = element("p", { class: "sentence", role: "status", "aria-live": "polite" });
    this.tiles = element("dl", { class: "tiles" });
    this.bar = element("div", { class: "bar", "aria-hidden": "true" });
    this.stages = element("ul", { class: "stages", "aria-label": "GFLOPs by stage" });
    const controls = element("div", { class: "controls" }, ...this.sliders.map((s) => s.row));
    if (this.data.marks.length) controls.append(this.buttons());
    box.append(
      element("div", { class: "top" }, controls, element("div", {}, this.chart, this.key())),
      this.sentence,
      this.tiles,
      this.bar,
      this.stages,
    );
  }

  slider(axis, index) {
    const id = `${this.box.id}-${axis.key}`;
    const last = axis.values.length - 1;
    const input = element("input", { type: "range", id, min: 0, max: last, step: 1, list: `${id}-values` });
    const shown = element("output", { for: id });
    const marks = axis.values.map((_, i) => element("option", { value: i }));
    input.addEventListener("input", () => {
      this.active = index;
      this.move(this.at.map((old, i) => (i === index ? Number(input.value) : old)));
    });
    input.addEventListener("focus", () => {
      this.active = index;
      this.drawPoint();
    });
    const label = element("label", { for: id }, axis.label);
    const values = element("datalist", { id: `${id}-values` }, ...marks);
    return { input, shown, row: element("div", { class: "knob" }, label, shown, input, values) };
  }

  buttons() {
    const row = element("div", { class: "marks" }, element("span", {}, this.data.marks_label));
    for (const mark of this.data.marks) {
      const button = element("button", { type: "button" }, mark.label);
      button.addEventListener("click", () => this.move(mark.at));
      row.append(button);
    }
    return row;
  }

  /** What the colours of the points mean. */
  key() {
    const { colour } = this.data;
    const axis = this.axes[colour.axis];
    const row = element("div", { class: "key" }, element("span", {}, axis.label));
    axis.values.forEach((value, i) => {
      const dot = element("i");
      dot.style.background = colour.shades[i];
      row.append(element("span", {}, dot, String(value)));
    });
    return row;
  }

  move(at) {
    this.at = at;
    this.update();
    this.toAddress();
  }

  update() {
    this.sliders.forEach(({ input, shown }, i) => {
      const axis = this.axes[i];
      const text = `${number(axis.values[this.at[i]], 0)}${axis.unit ? ` ${axis.unit}` : ""}`;
      input.value = this.at[i];
      input.setAttribute("aria-valuetext", text);
      shown.textContent = text;
    });
    this.sentence.textContent = this.words();
    this.tiles.replaceChildren(
      ...this.data.tiles.map(({ column, label, unit, digits }) => {
        const text = `${number(this.value(column, this.at), digits)}${unit ? ` ${unit}` : ""}`;
        return element("div", {}, element("dt", {}, label), element("dd", { "data-column": column }, text));
      }),
    );
    this.drawStages();
    this.drawPoint();
  }

  /** The chosen network in a sentence: what the knobs become, and where it stands. */
  words() {
    const value = (column) => this.value(column, this.at);
    const [asked, used] = [this.knob("resolution"), value("resolution")];
    const [wanted, queries] = [this.knob("queries"), value("queries")];
    const [patch, windows] = [this.knob("patch_size"), this.knob("windows")];
    const side = used / patch;
    const parts = [
      asked === used ? `${used} px` : `${asked} → ${used} px (a multiple of ${patch} × ${windows})`,
      `${side} × ${side} = ${number(side * side, 0)} tokens`,
      windows === 1 ? "one window" : `${windows} × ${windows} windows`,
      this.knob("decoder_layers") ? counted(this.knob("decoder_layers"), "decoder layer") : "no decoder",
      wanted === queries ? `${number(queries, 0)} queries` : `${wanted} → ${queries} queries (all tokens)`,
    ];
    const here = this.data.marks.find((mark) => mark.at.every((i, axis) => i === this.at[axis]));
    const name = here ? ` This is “${here.label}”${here.note ? `: ${here.note}` : ""}.` : "";
    return `${parts.join(", ")}.${name}${this.regret()}`;
  }

  /** How far below the front the network is, where there is a front. */
  regret() {
    if (!this.data.columns.regret) return "";
    const lost = this.value("regret", this.at);
    const { x, y } = this.data;
    if (lost === null) return "";
    if (lost === 0) return " It is on the front.";
    return ` The front has ${number(lost, y.digits)} more ${y.label} at this ${x.label}.`;
  }

  drawStages() {
    const values = this.data.stages.map(({ column }) => this.value(column, this.at));
    const total = values.reduce((a, b) => a + b, 0);
    const parts = this.data.stages.map(({ colour }, i) => {
      const part = element("span");
      part.style.cssText = `background:${colour};width:${(100 * values[i]) / total}%`;
      return part;
    });
    this.bar.replaceChildren(...parts);
    this.stages.replaceChildren(
      ...this.data.stages.map(({ column, label, colour, digits }, i) => {
        const dot = element("i");
        dot.style.background = colour;
        const shown = element("b", {}, number(values[i], digits));
        return element("li", { "data-column": column }, dot, `${label} `, shown);
      }),
    );
  }

  /** Everything that stays when a slider moves: axes, all points, the front, the marked networks. */
  drawCloud() {
    const [width, height] = [this.chart.clientWidth, this.chart.clientHeight];
    if (!width || !height) return;
    const { data } = this;
    this.x = scale(this.xs, data.x.log, MARGIN.left, width - MARGIN.right);
    this.y = scale(this.ys, data.y.log, height - MARGIN.bottom, MARGIN.top);
    const pen = penOf(this.canvas, width, height);
    drawAxes(pen, width, height, this.x, this.y, axisName(data.x), axisName(data.y));
    pen.globalAlpha = 0.55;
    this.cells.forEach((at, i) => {
      if (this.xs[i] === null || this.ys[i] === null) return;
      pen.fillStyle = data.colour.shades[at[data.colour.axis]];
      pen.fillRect(this.x(this.xs[i]) - 1.5, this.y(this.ys[i]) - 1.5, 3, 3);
    });
    pen.globalAlpha = 1;
    this.drawFront(pen);
    this.drawMarks(pen);
    this.drawPoint();
  }

  drawFront(pen) {
    if (!this.data.front.length) return;
    pen.strokeStyle = "#D55E00";
    pen.lineWidth = 1.5;
    pen.beginPath();
    this.data.front.forEach(([x, y], i) => {
      const [left, top] = [this.x(x), this.y(y)];
      if (i) pen.lineTo(left, this.y(this.data.front[i - 1][1]));
      pen[i ? "lineTo" : "moveTo"](left, top);
    });
    pen.stroke();
    pen.lineWidth = 1;
  }

  drawMarks(pen) {
    pen.textAlign = "left";
    for (const { label, at } of this.data.marks) {
      const [left, top] = this.place(at);
      pen.fillStyle = "#111";
      pen.beginPath();
      starPath(pen, left, top, 2.6, 6.5);
      pen.fill();
      pen.strokeStyle = "#fff";
      pen.lineWidth = 3;
      pen.strokeText(label, left + 8, top + 12);
      pen.fillText(label, left + 8, top + 12);
      pen.lineWidth = 1;
    }
  }

  place(at) {
    return [this.x(this.value(this.data.x.column, at)), this.y(this.value(this.data.y.column, at))];
  }

  /** The chosen network, and where the slider used last would take it. */
  drawPoint() {
    if (!this.x) return;
    const { x, y } = this.data;
    const known = (at) => this.value(x.column, at) !== null && this.value(y.column, at) !== null;
    const way = this.axes[this.active].values
      .map((_, i) => this.at.map((old, axis) => (axis === this.active ? i : old)))
      .filter(known)
      .map((at) => this.place(at));
    const parts = [shape("polyline", { class: "way", points: way.map((p) => p.join()).join(" ") })];
    parts.push(...way.map(([cx, cy]) => shape("circle", { class: "step", cx, cy, r: 2.5 })));
    if (known(this.at)) {
      const [cx, cy] = this.place(this.at);
      parts.push(shape("circle", { class: "here", cx, cy, r: 7 }));
    }
    this.front.replaceChildren(...parts);
  }

  /** Choose the network nearest to a click; among those at one place the one that moves fewest sliders. */
  pick(event) {
    const frame = this.chart.getBoundingClientRect();
    const [left, top] = [event.clientX - frame.left, event.clientY - frame.top];
    let best = null;
    this.cells.forEach((at, i) => {
      if (this.xs[i] === null || this.ys[i] === null) return;
      const away = Math.round(Math.hypot(this.x(this.xs[i]) - left, this.y(this.ys[i]) - top));
      const moved = at.filter((one, axis) => one !== this.at[axis]).length;
      if (!best || away < best.away || (away === best.away && moved < best.moved))
        best = { at, away, moved };
    });
    if (best) this.move(best.at);
  }
}

begin("explorer", Explorer);
