"use strict";
const SVG = "http://www.w3.org/2000/svg";
const BROADEST = 24; // so many models in a strip plot can still be told apart
const SHAPES = ["M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0", "M-3.2-3.2h6.4v6.4h-6.4z", "M0-4.2 3.9 3H-3.9z", "M0-4.4 4.4 0 0 4.4-4.4 0z"];
const COLOURS = 6;
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const number = (x, digits = 2) => (x === null || x === undefined ? "–" : x.toFixed(digits));
const between = (interval) => interval.map((x) => number(x)).join(" to ");
const fill = (node, attributes, children) => {
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// 2, 3, 4, 6 as "2–4, 6"
function ranges(numbers) {
  const parts = [];
  for (const n of numbers) {
    const last = parts[parts.length - 1];
    if (last && n === last[1] + 1) last[1] = n;
    else parts.push([n, n]);
  }
  return parts.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`)).join(", ");
}

// what is shown of all metrics and aggregations: of other kinds of task their first metric
const pick = (scores, view) => {
  const by = scores && (scores[view.metric] || scores.ap || scores.mrr || scores.accuracy || scores.pearson);
  return by ? by[view.aggregate] || by.all || null : null;
};

// ---- the drawer: a number, the command that makes it again, what decided it
const drawer = document.getElementById("drawer");
function open(title, score, made) {
  drawer.querySelector("h2").textContent = title;
  drawer.querySelector(".score").textContent = score;
  drawer.querySelector("pre").textContent = [...new Set(made.map((one) => one.command))].join("\n");
  drawer.querySelector(".note").textContent = made[0].note || "";
  document.getElementById("copied").textContent = "";
  const lists = made.map((one) => {
    const facts = [...one.facts, ...(one.extra || [])].filter(([, value]) => value);
    const list = make("dl", {}, ...facts.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));
    return made.length === 1 ? list : make("details", {}, make("summary", {}, one.name), list);
  });
  drawer.querySelector(".facts").replaceChildren(...lists);
  drawer.showModal();
  drawer.scrollTop = 0;
}
document.getElementById("copy").addEventListener("click", async () => {
  const command = drawer.querySelector("pre");
  const told = document.getElementById("copied");
  try {
    await navigator.clipboard.writeText(command.textContent);
    told.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(command); // where a page may not write: the older way, or by hand
    told.textContent = document.execCommand("copy") ? "copied" : "selected: copy it by key";
  }
});
drawer.addEventListener("click", (event) => { if (event.target === drawer) drawer.close(); });
const panels = read("made");
for (const button of all("[data-made]"))
  button.addEventListener("click", () => open(panels[button.dataset.made].title, "", [panels[button.dataset.made]]));

// ---- a leaderboard
function columnsOf(board, view) {
  const average = { title: "Avg.", task: null, of: (row) => pick(row.average, view), theirs: (paper) => paper.average };
  // of one task it is the same number, and scores of different kinds have none
  const shown = board.tasks.length > 1 && board.rows.some((row) => row.average) ? [average] : [];
  for (const task of board.tasks) {
    if (view.off.has(task.name)) continue;
    shown.push({
      title: task.title, task: task.name,
      of: (row) => pick(row.scores[task.name], view), theirs: (paper) => paper.scores[task.name],
    });
    if (view.off.has("subsets")) continue;
    for (const name of new Set(board.rows.flatMap((row) => Object.keys(row.subsets[task.name] || {}))))
      shown.push({
        title: "· " + name, task: task.name,
        of: (row) => ((row.subsets[task.name] || {})[name] || {})[view.metric] || null, theirs: () => null,
      });
  }
  return shown;
}

// how far the widest interval of these scores reaches from its score
const reach = (entries) => Math.max(...entries.filter((e) => e && e.interval).flatMap((e) => [e.value - e.interval[0], e.interval[1] - e.value]), 1e-9);

function scoreCell(row, column, widest, view, board) {
  const entry = column.of(row);
  const cell = make("td", { class: column.task ? undefined : "average" });
  if (!entry) {
    const why = column.task && row.skipped && row.skipped[column.task];
    return fill(cell, why ? { title: `not scored: it ${why}` } : {}, ["–"]);
  }
  const words = entry.interval ? `95 %: ${between(entry.interval)}` : "no interval";
  const spread = entry.sd === undefined ? "" : ` ± ${number(entry.sd)}`;
  const button = make("button", { type: "button", class: "score", title: words }, make("span", { class: "value" }, number(entry.value)));
  button.append(make("small", { class: "sd" }, spread));
  if (!view.off.has("bars") && entry.interval) {
    const [low, high] = entry.interval.map((end) => 50 + (50 * (end - entry.value)) / widest);
    const bar = make("span", { class: "interval", "aria-hidden": "true" }, make("i"), make("b"));
    Object.assign(bar.firstChild.style, { left: `${low}%`, width: `${high - low}%` });
    button.append(bar);
  }
  button.addEventListener("click", () => {
    const task = column.task ? column.title.replace("· ", "") : "average";
    const made = row.made.map((one) => ({
      ...one,
      command: one.command + (board.sts && one.command.includes(" eval ") ? flags(view) : ""),
      extra: column.task ? [["data", one.data[column.task]]] : [],
    }));
    open(`${row.of ? row.of + ", " : ""}${row.model}: ${task}`, `${number(entry.value)}${spread} (${words})`, made);
  });
  cell.append(button);
  return cell;
}

const flags = (view) => (view.metric === "spearman" ? "" : ` --metric ${view.metric}`) + (view.aggregate === "all" ? "" : ` --aggregate ${view.aggregate}`);

function nameCell(row, view, redraw) {
  const cell = make("th", { scope: "row", class: "left name" });
  const slash = row.model.lastIndexOf("/");
  if (slash > 0) cell.append(make("small", {}, row.model.slice(0, slash + 1)));
  const name = row.model.slice(slash + 1);
  cell.append(row.page ? make("a", { href: row.page }, name) : name);
  if (row.seen.length) cell.append(" ", make("abbr", { title: row.seen.join(" ") }, "†"));
  if (row.embedded) cell.append(" ", make("a", { class: "badge", href: "#embedded" }, "embedded"));
  if (row.settings && !view.off.has("settings")) cell.append(make("small", {}, row.settings));
  if (row.seeds && row.seeds.length) {
    const shown = view.open.has(row);
    const label = [make("span", { class: "hidden" }, `${row.model}: `), `${row.seeds.length} seeds ${shown ? "▾" : "▸"}`];
    const fold = make("button", { type: "button", class: "fold", "aria-expanded": `${shown}` }, ...label);
    fold.addEventListener("click", () => {
      if (!view.open.delete(row)) view.open.add(row);
      redraw((section) => all("button.fold", section).find((one) => one.textContent.startsWith(`${row.model}: `)));
    });
    cell.append(fold);
  }
  return cell;
}

function linesOf(row, columns, widest, view, board, redraw) {
  const rank = pick(row.rank, view);
  const tied = rank && rank.tied.length ? ranges([rank.rank, ...rank.tied].sort((a, b) => a - b)) : "";
  const first = make("td", { class: "rank" }, rank ? `${rank.rank}` : "–");
  if (tied) first.append(make("small", { title: `noise leaves ranks ${tied} equal to it` }, make("span", { class: "hidden" }, "not told from ranks "), make("span", { "aria-hidden": "true" }, "≈ "), tied));
  const cells = (of) => columns.map((column) => scoreCell(of, column, widest, view, board));
  const lines = [make("tr", {}, first, nameCell(row, view, redraw), ...cells(row))];
  const paper = view.off.has("published") ? null : pick(row.published, view);
  if (paper) {
    const name = make("th", { scope: "row", class: "left name" }, make("span", { class: "paper-sign", "aria-hidden": "true" }, "◇ "), `published: ${paper.row}`, make("small", {}, paper.source));
    lines.push(make("tr", { class: "published" }, make("td", { class: "rank" }), name, ...columns.map((c) => make("td", {}, number(c.theirs(paper)), make("span", { class: "sd" })))));
  }
  if (view.open.has(row))
    for (const seed of row.seeds) {
      const name = make("th", { scope: "row", class: "left name" }, seed.model);
      lines.push(make("tr", { class: "seed" }, make("td", { class: "rank" }), name, ...cells({ ...seed, of: row.model })));
    }
  lines.slice(0, -1).forEach((line) => line.classList.add("above"));
  return lines;
}

function sorted(rows, key, view) {
  const value = (row) => (key.of(row) || { value: null }).value;
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return view.rising ? x - y : y - x;
  });
}

function drawBoard(board, view, section, focus) {
  const redraw = (target) => drawBoard(board, view, section, target);
  const columns = columnsOf(board, view);
  const key = columns.find((c) => c.title === view.sort) || columns[0];
  const rows = sorted(board.rows.filter(fits(board)), key, view);
  section.hidden = rows.length === 0;
  const widest = reach(columns.flatMap((c) => rows.flatMap((row) => [c.of(row), ...row.seeds.map(c.of)])));
  const head = make("tr", {}, make("th", { scope: "col", class: "rank" }, make("span", { class: "hidden" }, "rank"), make("span", { "aria-hidden": "true" }, "#")), make("th", { scope: "col", class: "left name" }, "model"));
  for (const column of columns) {
    const order = column === key ? (view.rising ? "ascending" : "descending") : "none";
    const arrow = column === key ? make("span", { "aria-hidden": "true" }, view.rising ? " ▴" : " ▾") : null;
    const button = make("button", { type: "button", "data-column": column.title }, column.title, arrow);
    button.addEventListener("click", () => {
      view.rising = column === key ? !view.rising : false;
      view.sort = column.title;
      redraw((within) => all("thead button", within).find((one) => one.dataset.column === column.title));
    });
    head.append(make("th", { scope: "col", "aria-sort": order }, button));
  }
  const body = rows.flatMap((row) => linesOf(row, columns, widest, view, board, redraw));
  section.querySelector("table").classList.toggle("spread", rows.some((row) => row.seeds.length > 0));
  section.querySelector("table").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
  drawStrips(board, view, rows, columns.filter((c) => !c.title.startsWith("· ")), section);
  const target = focus && focus(section);
  if (target) target.focus();
  return rows.length;
}

// ---- task by task: a row per task, its models by rank, the best on top
function drawStrips(board, view, rows, columns, section) {
  const plot = section.querySelector(".plot");
  const shown = rows.slice(0, BROADEST);
  const lanes = shown.map((row, i) => ({
    row, paper: pick(row.published, view), colour: `var(--c${i % COLOURS})`, shape: SHAPES[Math.floor(i / COLOURS) % SHAPES.length],
    name: `${row.model} (${row.settings})`,
  }));
  const ends = columns.flatMap((c) => lanes.flatMap(({ row, paper }) => {
    const entry = c.of(row);
    return [...(entry ? [entry.value, ...(entry.interval || [])] : []), ...(paper ? [c.theirs(paper)] : [])];
  })).filter((x) => x !== null && x !== undefined);
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const step = [1, 2, 5, 10, 20].find((s) => (most - least) / s <= 7) || 50;
  const [low, high] = [Math.floor(least / step) * step, Math.ceil(most / step) * step];
  const at = (x) => `${high > low ? (100 * (x - low)) / (high - low) : 50}%`;
  const steps = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => low + i * step);
  const grid = () => steps.map((x) => draw("line", { class: "grid", x1: at(x), x2: at(x), y1: "0", y2: "100%" }));
  const parts = columns.flatMap((column) => {
    const ranked = lanes.map((lane, i) => ({ ...lane, i, entry: column.of(lane.row) })).filter(({ entry }) => entry);
    ranked.sort((a, b) => b.entry.value - a.entry.value);
    const marks = ranked.map(({ paper, colour, shape, name, i, entry }, rank) => {
      const y = 9 + rank * 8;
      const group = draw("g", { "data-lane": i, style: `color:${colour}` }, draw("title", {}, `${name}: ${number(entry.value)}` + (entry.interval ? `, 95 % ${between(entry.interval)}` : "")));
      if (entry.interval) group.append(draw("line", { class: "ci", x1: at(entry.interval[0]), x2: at(entry.interval[1]), y1: y, y2: y }));
      const theirs = paper && column.theirs(paper);
      if (theirs !== null && theirs !== undefined) group.append(draw("svg", { x: at(theirs), y, overflow: "visible" }, draw("path", { class: "theirs", d: shape })));
      group.append(draw("svg", { x: at(entry.value), y, overflow: "visible" }, draw("path", { class: "dot", d: shape })));
      return group;
    });
    const told = ranked.map(({ name, entry }) => `${name} ${number(entry.value)}`);
    return [make("span", {}, column.title), draw("svg", { role: "img", "aria-label": `${column.title}: ${told.join("; ")}`, height: 10 + 8 * ranked.length }, ...grid(), ...marks)];
  });
  const axis = draw("svg", { height: 16, "aria-hidden": "true" }, ...steps.map((x) => draw("text", { x: at(x), y: 12 }, `${x}`)));
  axis.style.borderBottom = "0";
  plot.classList.remove("picked");
  plot.replaceChildren(...parts, make("span"), axis);
  section.querySelector(".legend").replaceChildren(...lanes.map(({ colour, shape, name }, i) => {
    const icon = draw("svg", { width: 10, height: 10, viewBox: "-5 -5 10 10", style: `color:${colour}`, "aria-hidden": "true" }, draw("path", { d: shape, fill: "currentColor" }));
    const button = make("button", { type: "button", "aria-pressed": "false" }, icon, name);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of all(".legend button", section)) other.setAttribute("aria-pressed", `${on && other === button}`);
      plot.classList.toggle("picked", on);
      for (const group of all("g", plot)) group.classList.toggle("on", on && group.dataset.lane === `${i}`);
    });
    return button;
  }));
  const published = lanes.some(({ paper }) => paper) ? "Hollow: published. " : "";
  const left = rows.length - shown.length;
  section.querySelector(".rest").textContent = published + (left > 0 ? `The first ${BROADEST} rows of the table; ${left} more are not drawn.` : "");
}

function offerColumns(board, view, section, redraw) {
  const choices = [["settings", "pooling and type"], ["bars", "intervals"], ["published", "published rows"]];
  if (board.rows.some((row) => Object.keys(row.subsets).length)) choices.push(["subsets", "subsets of tasks"]);
  const box = section.querySelector(".choices");
  const offer = ([name, title]) => {
    const input = make("input", { type: "checkbox", "data-column": name });
    input.checked = !view.off.has(name);
    input.addEventListener("change", () => {
      if (input.checked) view.off.delete(name);
      else view.off.add(name);
      redraw();
    });
    return make("label", {}, input, title);
  };
  box.append(...choices.map(offer), make("hr"), ...board.tasks.map((task) => offer([task.name, task.title])));
}

// ---- filters over all leaderboards
const filters = document.getElementById("filters");
const wanted = (name) => (filters ? filters.elements[name].value : "");
const holds = (words) => words.toLowerCase().includes(wanted("text").trim().toLowerCase());
const fits = (board) => {
  const there = (name, value) => !wanted(name) || wanted(name) === value;
  const shown = there("language", board.language) && there("protocol", board.protocol);
  return (row) => shown && there("numbers", board.embedded || row.embedded ? "embedded" : "real") && holds(`${row.model} ${row.settings}`);
};
const boards = read("boards").map((board) => {
  const section = document.getElementById(board.id);
  const view = { metric: "spearman", aggregate: "all", sort: "Avg.", rising: false, off: new Set(["subsets"]), open: new Set() };
  const redraw = () => drawBoard(board, view, section);
  for (const control of all("[data-switch]", section))
    control.addEventListener("change", () => {
      view[control.dataset.switch] = control.value;
      redraw();
    });
  offerColumns(board, view, section, redraw);
  return { board, redraw };
});
function filter() {
  const rows = boards.reduce((sum, { redraw }) => sum + redraw(), 0);
  let others = 0;
  for (const section of all(".board.static")) {
    const apart = (wanted("protocol") && wanted("protocol") !== section.dataset.protocol) || wanted("language");
    for (const line of all("tbody tr", section)) {
      const real = wanted("numbers") && (wanted("numbers") === "embedded") !== line.textContent.includes("(embedded)");
      line.hidden = Boolean(apart || real || !holds(line.textContent));
      others += !line.hidden;
    }
    section.hidden = all("tbody tr", section).every((line) => line.hidden);
  }
  const whole = boards.reduce((sum, { board }) => sum + board.rows.length, 0) + all(".board.static tbody tr").length;
  if (!filters) return;
  document.getElementById("count").textContent = `${rows + others} of ${whole} rows`;
  document.getElementById("none").hidden = rows + others > 0;
}
if (filters) {
  for (const kind of ["input", "change"]) filters.addEventListener(kind, filter); // not all browsers tell input of a choice
  filters.addEventListener("submit", (event) => event.preventDefault());
}
filter();

// ---- statements by verdict
const tallies = all("button.tally");
for (const tally of tallies)
  tally.addEventListener("click", () => {
    tally.setAttribute("aria-pressed", `${tally.getAttribute("aria-pressed") !== "true"}`);
    const shown = new Set(tallies.filter((one) => one.getAttribute("aria-pressed") === "true").map((one) => one.dataset.verdict));
    for (const line of all(".claim li[data-verdict]")) line.hidden = !shown.has(line.dataset.verdict);
    for (const claim of all(".claim:not(.axis)")) claim.hidden = all("li", claim).every((line) => line.hidden);
    for (const group of all(".claims .group")) group.hidden = all(".claim", group).every((claim) => claim.hidden);
  });

// ---- the pairs of a model and task, narrowed to those that hold the words
function browse(models, part) {
  const [model, task, words] = ["model", "task", "words"].map((name) => part.querySelector(`[data-pairs=${name}]`));
  const head = make("tr", {}, ...["sentence", "other sentence", "ranks", "gold", "cosine"].map((title, i) => make("th", { scope: "col", class: i < 3 ? "left" : undefined }, title)));
  const show = () => {
    const lines = models[model.value].tasks[task.value].pairs
      .filter((pair) => `${pair.left}\n${pair.right}`.toLowerCase().includes(words.value.trim().toLowerCase()))
      .map((pair) => {
        const [gold, cosine] = [pair.gold_rank, pair.cosine_rank];
        const told = `rank of gold ${number(gold, 0)}, rank of cosine ${number(cosine, 0)}`;
        const ranks = draw("svg", { class: "track", role: "img", "aria-label": told }, draw("title", {}, told),
          draw("line", { class: "grid", x1: "0", x2: "100%", y1: "50%", y2: "50%" }),
          draw("line", { class: "ci", x1: `${gold}%`, x2: `${cosine}%`, y1: "50%", y2: "50%" }),
          draw("circle", { class: "seed", cx: `${gold}%`, cy: "50%", r: 3 }), draw("circle", { class: "mean", cx: `${cosine}%`, cy: "50%", r: 3.5 }));
        const sentences = ["left", "right"].map((side) => make("td", { class: "left words", dir: "auto" }, pair[side]));
        return make("tr", {}, ...sentences, make("td", { class: "ranks" }, ranks), make("td", { "data-label": "gold" }, number(pair.gold, 1)), make("td", { "data-label": "cosine" }, number(pair.cosine)));
      });
    part.querySelector("table").replaceChildren(make("thead", {}, head), make("tbody", {}, ...lines));
  };
  const offer = () => {
    const before = task.selectedOptions[0] && task.selectedOptions[0].textContent;
    const titles = models[model.value].tasks.map((one) => one.title);
    task.replaceChildren(...titles.map((title, i) => make("option", { value: i }, title)));
    task.value = Math.max(0, titles.indexOf(before));
    show();
  };
  const alike = (one) => models.filter((other) => other.model === one.model).length > 1;
  model.append(...models.map((one, i) => make("option", { value: i }, alike(one) ? `${one.model} (${one.place})` : one.model)));
  model.addEventListener("change", offer);
  task.addEventListener("change", show);
  words.addEventListener("input", show);
  offer();
}
const worst = read("worst");
if (worst.length) browse(worst, document.getElementById("pairs"));

// ---- on a narrow screen the figures wait to be asked for
if (matchMedia("(max-width: 40rem)").matches) for (const strips of all(".strips")) strips.open = false;

// ---- the page itself: dark or light, menus, where one is, print
const root = document.documentElement;
const scheme = document.getElementById("scheme");
const dark = () => (root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
const told = () => scheme.setAttribute("aria-pressed", `${dark()}`);
try {
  if (localStorage.getItem("scheme")) root.dataset.scheme = localStorage.getItem("scheme");
} catch { /* a page without storage follows the system */ }
scheme.addEventListener("click", () => {
  root.dataset.scheme = dark() ? "light" : "dark";
  try { localStorage.setItem("scheme", root.dataset.scheme); } catch { /* as above */ }
  told();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", told);
told();
document.addEventListener("click", (event) => {
  for (const menu of all(".menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of all(".menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
const links = new Map(all(".bar li a").map((link) => [document.querySelector(link.getAttribute("href")), link]));
const watch = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries)
    if (isIntersecting) for (const [section, link] of links) section === target ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
}, { rootMargin: "-20% 0px -75% 0px" });
for (const section of links.keys()) watch.observe(section);
const openFor = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = target && target.closest("details");
  if (folded && !folded.open) {
    folded.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", openFor);
openFor();
let folded = [];
addEventListener("beforeprint", () => {
  folded = all("main details:not([open]):not(.menu)");
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
