// What the drawings of a page share: elements, numbers, scales and axes. `rfdetr.plots.embed` puts it before
// the script of each kind of drawing, both inside one function. No network, no library.
const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 52, right: 12, top: 10, bottom: 40 };

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const number = (value, digits) =>
  value === null || value === undefined
    ? "–"
    : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** Positions of ticks: 1, 2, 5 times powers of ten on a logarithmic axis, round steps on a linear one. */
function ticks(low, high, logarithmic) {
  const found = [];
  if (logarithmic) {
    const factors = high / low > 300 ? [1] : high / low > 30 ? [1, 3] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++)
      for (const factor of factors) found.push(factor * 10 ** power);
  } else {
    const rough = (high - low) / 5;
    const ten = 10 ** Math.floor(Math.log10(rough));
    const step = ten * ([1, 2, 5].find((factor) => factor * ten >= rough) ?? 10);
    for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  }
  return found.map((value) => Number(value.toPrecision(6))).filter((v) => v >= low && v <= high);
}

/** A scale from data to pixels, with some room at both ends. */
function scale(values, logarithmic, from, to) {
  const change = logarithmic ? Math.log10 : (value) => value;
  const known = values.filter((v) => v !== null && (!logarithmic || v > 0)).map(change);
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  const room = 0.04 * (high - low || 1);
  const slope = (to - from) / (high - low + 2 * room);
  const back = logarithmic ? (value) => 10 ** value : (value) => value;
  const place = (value) => from + (change(value) - low + room) * slope;
  place.back = (pixels) => back(low - room + (pixels - from) / slope);
  place.ticks = ticks(back(low - room), back(high + room), logarithmic);
  return place;
}

/** A canvas's pen for coordinates in CSS pixels; the canvas gets the size. */
function penOf(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "12px sans-serif";
  return pen;
}

const axisName = ({ label, unit }) => (unit && unit !== label ? `${label}, ${unit}` : label);

/** Grid lines, numbers and names of two scales, in the colours of the page around. */
function drawAxes(pen, width, height, x, y, xName, yName) {
  const bottom = height - MARGIN.bottom;
  const style = getComputedStyle(pen.canvas);
  pen.strokeStyle = style.getPropertyValue("--chart-line").trim() || "#ddd";
  pen.fillStyle = style.color;
  const line = (...ends) => {
    pen.beginPath();
    pen.moveTo(ends[0], ends[1]);
    pen.lineTo(ends[2], ends[3]);
    pen.stroke();
  };
  pen.textAlign = "center";
  for (const value of x.ticks) {
    line(x(value), MARGIN.top, x(value), bottom);
    pen.fillText(value.toLocaleString("en-US"), x(value), bottom + 15);
  }
  pen.fillText(xName, (MARGIN.left + width - MARGIN.right) / 2, height - 6);
  pen.textAlign = "right";
  for (const value of y.ticks) {
    line(MARGIN.left, y(value), width - MARGIN.right, y(value));
    pen.fillText(value.toLocaleString("en-US"), MARGIN.left - 5, y(value) + 4);
  }
  pen.save();
  pen.translate(12, (MARGIN.top + bottom) / 2);
  pen.rotate(-Math.PI / 2);
  pen.textAlign = "center";
  pen.fillText(yName, 0, 0);
  pen.restore();
}

/** The outline of a five-pointed star. */
function starPath(pen, left, top, inner, outer) {
  for (let i = 0; i < 10; i++) {
    const [angle, radius] = [(i * Math.PI) / 5 - Math.PI / 2, i % 2 ? inner : outer];
    pen.lineTo(left + radius * Math.cos(angle), top + radius * Math.sin(angle));
  }
  pen.closePath();
}

/** Make a drawing of every box of a kind that has none yet, now or when the page is there. */
function begin(kind, Drawing) {
  const start = () => {
    for (const box of document.querySelectorAll(`div.nas-${kind}:not([data-ready])`)) {
      box.setAttribute("data-ready", "");
      new Drawing(box);
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
}
