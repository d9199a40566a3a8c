"use strict";
// asks the server; answers that come after a newer question are forgotten
function asker(path, form, status, show) {
  let latest = 0;
  const ask = async () => {
    const mine = ++latest;
    status.textContent = "…";
    let found;
    try {
      const answer = await fetch(path + "?" + new URLSearchParams(new FormData(form)));
      found = await answer.json();
    } catch {
      found = { error: "the demo does not answer; is it still running?" };
    }
    if (mine === latest) show(found);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  return ask;
}

const byId = (id) => document.getElementById(id);
const search = byId("search");
const searchStatus = byId("search-status");
const pairStatus = byId("pair-status");

const ask = asker("api/search", search, searchStatus, (found) => {
  const hits = found.results || [];
  const count = hits.length === 1 ? "1 sentence" : `${hits.length} sentences`;
  searchStatus.textContent = found.error || (hits.length ? count : "no sentence reaches this cosine; lower it");
  byId("results").replaceChildren(
    ...hits.map((hit) => {
      const [line, score, text] = ["li", "span", "span"].map((tag) => document.createElement(tag));
      score.className = "score";
      score.textContent = hit.score.toFixed(4);
      text.className = "sentence";
      text.dir = "auto";
      text.textContent = hit.sentence;
      line.append(score, text);
      return line;
    }),
  );
});

asker("api/similarity", byId("pair"), pairStatus, (found) => {
  pairStatus.textContent = found.error || `cosine ${found.similarity.toFixed(4)}`;
});

for (const button of document.querySelectorAll(".example"))
  button.addEventListener("click", () => {
    search.elements.query.value = button.textContent;
    ask();
  });
