"use strict";
const number = (x) => (x === null || x === undefined ? "–" : x.toFixed(2));
const make = (tag, text, attributes = {}) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

// the score that is shown: of the metric asked for on STS, the accuracy on a transfer task
const pick = (scores, view) => {
  if (!scores) return null;
  const by = scores[view.metric] || scores.accuracy;
  return by ? by[view.aggregate] || by.all : null;
};

function columns(board, view) {
  const found = [];
  for (const task of board.tasks) {
    found.push({ title: task.title, task: task.name, of: (row) => pick(row.scores[task.name], view) });
    if (!view.subsets) continue;
    const names = new Set(board.rows.flatMap((row) => Object.keys(row.subsets[task.name] || {})));
    for (const name of names)
      found.push({
        title: "· " + name,
        task: task.name,
        of: (row) => ((row.subsets[task.name] || {})[name] || {})[view.metric] || null,
      });
  }
  found.push({ title: "Avg.", task: null, of: (row) => pick(row.average, view) });
  return found;
}

function open(row, column, entry) {
  const box = document.getElementById("box");
  box.querySelector("h2").textContent = `${row.model}, ${column.title}: ${number(entry.value)}`;
  const list = box.querySelector("dl");
  list.replaceChildren();
  const facts = { ...row.provenance };
  if (entry.interval) facts["95 % interval"] = entry.interval.map(number).join(" to ");
  if (column.task) facts.data = row.data[column.task];
  for (const [key, value] of Object.entries(facts)) list.append(make("dt", key), make("dd", value));
  box.showModal();
}

function draw(board, view, table) {
  const shown = columns(board, view);
  const key = shown.find((c) => c.title === view.sort) || shown[shown.length - 1];
  const value = (row) => (key.of(row) || { value: null }).value;
  const rows = [...board.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return view.rising ? x - y : y - x;
  });
  const head = make("tr");
  head.append(make("th", "model", { scope: "col", class: "left" }), make("th", "settings", { scope: "col", class: "left" }));
  for (const column of shown) {
    const sorted = column === key ? (view.rising ? "ascending" : "descending") : "none";
    const cell = make("th", undefined, { scope: "col", "aria-sort": sorted });
    const button = make("button", column.title + (column === key ? (view.rising ? " ▲" : " ▼") : ""), { type: "button" });
    button.dataset.column = column.title;
    button.addEventListener("click", () => {
      view.rising = column === key ? !view.rising : false;
      view.sort = column.title;
      draw(board, view, table);
      table.querySelector(`button[data-column="${CSS.escape(column.title)}"]`).focus();
    });
    cell.append(button);
    head.append(cell);
  }
  const body = make("tbody");
  for (const row of rows) {
    const line = make("tr");
    line.append(make("th", row.model, { scope: "row", class: "left" }), make("td", row.settings, { class: "left" }));
    for (const column of shown) {
      const entry = column.of(row);
      const cell = make("td");
      if (entry) {
        const title = entry.interval ? `95 %: ${entry.interval.map(number).join(" to ")}` : "";
        const button = make("button", number(entry.value), { type: "button", class: "score", title });
        button.addEventListener("click", () => open(row, column, entry));
        cell.append(button);
      } else cell.textContent = "–";
      line.append(cell);
    }
    body.append(line);
  }
  const top = make("thead");
  top.append(head);
  table.replaceChildren(top, body);
}

// the pairs of a model and task, narrowed to those that hold the words
function browse(board, part) {
  const [model, task, words] = ["model", "task", "words"].map((name) => part.querySelector(`[data-pairs=${name}]`));
  const rows = board.rows.filter((row) => Object.keys(row.worst).length);
  rows.forEach((row, i) => model.append(make("option", `${row.model} (${row.settings})`, { value: i })));
  const head = make("tr");
  for (const title of ["gold", "cosine", "rank of gold", "rank of cosine"]) head.append(make("th", title, { scope: "col" }));
  for (const title of ["sentence", "other sentence"]) head.append(make("th", title, { scope: "col", class: "left" }));
  const top = make("thead");
  top.append(head);
  const show = () => {
    const wanted = words.value.trim().toLowerCase();
    const body = make("tbody");
    for (const pair of rows[model.value].worst[task.value]) {
      if (!`${pair.left}\n${pair.right}`.toLowerCase().includes(wanted)) continue;
      const line = make("tr");
      for (const [key, digits] of [["gold", 1], ["cosine", 2], ["gold_rank", 0], ["cosine_rank", 0]])
        line.append(make("td", pair[key].toFixed(digits)));
      for (const key of ["left", "right"]) line.append(make("td", pair[key], { class: "left words", dir: "auto" }));
      body.append(line);
    }
    part.querySelector("table").replaceChildren(top, body);
  };
  const offer = () => {
    const before = task.value;
    const there = board.tasks.filter((one) => rows[model.value].worst[one.name]);
    task.replaceChildren(...there.map((one) => make("option", one.title, { value: one.name })));
    if (there.some((one) => one.name === before)) task.value = before;
    show();
  };
  model.addEventListener("change", offer);
  task.addEventListener("change", show);
  words.addEventListener("input", show);
  offer();
}

for (const board of JSON.parse(document.getElementById("boards").textContent)) {
  const section = document.getElementById(board.id);
  const view = { metric: "spearman", aggregate: "all", subsets: false, sort: "Avg.", rising: false };
  const table = section.querySelector("table.scores");
  for (const control of section.querySelectorAll("[data-switch]"))
    control.addEventListener("change", () => {
      view[control.dataset.switch] = control.type === "checkbox" ? control.checked : control.value;
      draw(board, view, table);
    });
  draw(board, view, table);
  if (board.worst) browse(board, section.querySelector(".worst"));
}
