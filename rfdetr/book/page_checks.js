// What is wrong with the page that is open, as a list of sentences. Evaluated in a browser by rfdetr.book.check.
((options) => {
  const problems = [];
  const say = (text) => problems.push(text);
  const shown = (node) => node.getClientRects().length > 0 && getComputedStyle(node).visibility !== "hidden";
  const short = (node) => {
    const text = (node.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40);
    const kind = typeof node.className === "string" && node.className ? "." + node.className.split(" ")[0] : "";
    return `<${node.tagName.toLowerCase()}${kind}> ${text}`.trim();
  };
  const article = document.querySelector("article") || document.body;

  // ---- layout ----
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth + 1) {
    const past = [...document.body.querySelectorAll("*")].filter(shown)
      .filter((node) => node.getBoundingClientRect().right > page.clientWidth + 1 && !clipper(node));
    say(`the page is ${page.scrollWidth - page.clientWidth} px too wide: ${past.slice(0, 3).map(short).join("; ")}`);
  }
  // The nearest box that cuts off what does not fit, up to the page.
  function clipper(node) {
    for (let box = node.parentElement; box && box !== document.body; box = box.parentElement) {
      if (getComputedStyle(box).overflowX !== "visible") return box;
    }
    return null;
  }
  for (const table of article.querySelectorAll("table")) {
    const row = [...table.querySelectorAll("tr")].find(shown);
    const last = row && row.lastElementChild;
    if (!last || !shown(last)) continue;
    const box = clipper(table);
    const edge = box ? box.getBoundingClientRect().left + box.clientLeft + box.clientWidth : page.clientWidth;
    const hidden = Math.round(last.getBoundingClientRect().right - edge);
    if (hidden > 1) say(`a table's last column is hidden by ${hidden} px: ${short(last)} in ${short(table)}`);
  }

  if (options.code) {
    const folded = [...article.querySelectorAll("details:not([open])")];
    for (const box of folded) box.open = true;
    for (const code of article.querySelectorAll("div.cell_input pre")) {
      const hidden = code.scrollWidth - code.clientWidth;
      if (hidden > 1) say(`a code cell's lines are hidden by ${hidden} px: ${short(code)}`);
    }
    for (const box of folded) box.open = false;
  }

  // ---- what axe calls serious, where this site could have it ----
  const name = (node) => [
    node.getAttribute("aria-label"), node.title, node.textContent, node.getAttribute("alt"),
    ...[...node.querySelectorAll("img[alt], [aria-label], svg title")]
      .map((inner) => inner.getAttribute("alt") || inner.getAttribute("aria-label") || inner.textContent),
    ...(node.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean)
      .map((id) => (document.getElementById(id) || {}).textContent),
  ].some((text) => text && text.trim());
  if (options.structure) {
    if (!document.title.trim()) say("the page has no title");
    if (!page.lang) say("the page names no language");
    const about = document.querySelector('meta[name="description"]');
    if (options.described && !(about && about.content.trim())) say("the page has no description");
    if (!document.querySelector('link[rel~="icon"]')) say("the page has no icon");
    for (const image of document.images) {
      if (!image.hasAttribute("alt")) say(`an image without alternative text: ${image.getAttribute("src")}`);
      if (image.complete && !image.naturalWidth) say(`an image that is not there: ${image.getAttribute("src")}`);
    }
    for (const node of document.querySelectorAll("button, [role=button], summary, a[href]")) {
      if (shown(node) && !name(node)) say(`a control without a name: ${node.outerHTML.slice(0, 80)}`);
    }
    for (const field of document.querySelectorAll("input, select, textarea")) {
      const labelled = field.labels && [...field.labels].some((label) => label.textContent.trim());
      const named = ["aria-label", "aria-labelledby", "title", "placeholder"].some((key) => field.getAttribute(key));
      if (field.type !== "hidden" && shown(field) && !labelled && !named) say(`a field without a label: ${field.outerHTML.slice(0, 80)}`);
    }
    const levels = [...article.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter(shown).map((h) => [Number(h.tagName[1]), h]);
    if (levels.filter(([level]) => level === 1).length !== 1) say("the page has not exactly one first heading");
    levels.slice(1).forEach(([level, heading], place) => {
      if (level > levels[place][0] + 1) say(`a heading skips a level: ${short(heading)}`);
    });
    for (const head of article.querySelectorAll("th")) {
      if (!head.scope && head.textContent.trim()) say(`a table's head without scope: ${short(head)}`);
    }
    for (const node of article.querySelectorAll("[role=img], button, a[href]")) {
      const inner = node.querySelector("a[href], button, input, select, textarea, [tabindex]:not([tabindex='-1'])");
      if (inner) say(`a control inside another or inside an image: ${short(node)}`);
    }
    const seen = new Set();
    for (const node of article.querySelectorAll("[id]")) {
      if (seen.has(node.id) && !node.closest("svg")) say(`two elements with the identifier ${node.id}`);
      seen.add(node.id);
    }
  }

  // ---- contrast of text, 4.5 to 1, large text 3 to 1 (WCAG AA) ----
  const parse = (text) => {
    const parts = (text.match(/[\d.]+/g) || []).map(Number);
    return /^rgba?\(/.test(text) && parts.length >= 3 ? [...parts.slice(0, 3), parts.length > 3 ? parts[3] : 1] : null;
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const layers = [];
    for (let box = node; box; box = box.parentElement) {
      const colour = parse(getComputedStyle(box).backgroundColor);
      if (colour && colour[3] > 0) layers.push(colour);
      if (colour && colour[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const faint = new Map();
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || !node || node.closest("svg, script, style, noscript, mjx-container, option") || !shown(node)) continue;
    const style = getComputedStyle(node);
    const colour = parse(style.color);
    if (!colour || Number(style.opacity) < 1) continue;
    const below = ground(node);
    const [a, b] = [light(over(colour, below)), light(below)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const ratio = (a + 0.05) / (b + 0.05);
    const key = `${style.color} on ${below.slice(0, 3).map(Math.round)}`;
    if (ratio < needed - 0.01 && !faint.has(key)) faint.set(key, `contrast ${ratio.toFixed(1)} of ${key}: ${short(node)}`);
  }
  faint.forEach(say);

  // ---- controls do what they are for ----
  if (options.controls) {
    const change = (field, value) => {
      field.value = value;
      for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, {bubbles: true}));
    };
    for (const form of article.querySelectorAll("form.table-filters")) {
      const rows = [...document.getElementById(form.dataset.table).querySelectorAll("tbody tr")];
      const visible = () => rows.filter(shown).length;
      for (const field of form.querySelectorAll("[data-filter]")) {
        const values = field.options ? [...field.options].map((o) => o.value).filter(Boolean) : ["no such text"];
        for (const value of values) {
          change(field, value);
          const wrong = rows.filter(shown).filter((row) => field.options && !row.dataset[field.dataset.filter].split("|").includes(value));
          if (wrong.length || (!field.options && visible())) say(`the filter ${field.dataset.filter} = ${value} shows other rows`);
          if (!form.querySelector("output").textContent.startsWith(String(visible()))) say(`the filter ${field.dataset.filter} = ${value} counts wrong`);
        }
        change(field, "");
        if (visible() !== rows.length) say(`the filter ${field.dataset.filter} does not give all rows back`);
      }
    }
    for (const slider of article.querySelectorAll("input[type=range]")) {
      // What a group of sliders tells is in the outputs and live regions of its surroundings.
      const told = () => {
        const parts = [];
        for (let box = slider.parentElement; box && box !== article && !parts.length; box = box.parentElement) {
          parts.push(...box.querySelectorAll("output, [aria-live], [role=status]"));
        }
        return parts.map((part) => part.textContent).join("|");
      };
      if (!shown(slider)) continue;
      const before = told(), value = slider.value;
      change(slider, value === slider.max ? slider.min : slider.max);
      if (told() === before) say(`a slider moves nothing: ${slider.id || slider.name || slider.outerHTML.slice(0, 80)}`);
      change(slider, value);
    }
  }
  return problems;
})
