(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const cards = [...document.querySelectorAll(".case")];
  const count = document.getElementById("count");
  const wanted = {
    wrong: (d) => d.tuned === "wrong" || d.tuned === "unparsed",
    lost: (d) => d.tuned !== "right" && d.base === "right",
    won: (d) => d.tuned === "right" && d.base !== "right",
  };
  const apply = () => {
    const { task, state, label, words } = Object.fromEntries(new FormData(form));
    const text = words.trim().toLowerCase();
    const active = Boolean(task || state || label || text);
    let pictures = 0, questions = 0;
    for (const card of cards) {
      let shown = 0;
      const named = card.dataset.name.toLowerCase().includes(text);
      for (const row of card.querySelectorAll(".ask")) {
        const d = row.dataset;
        const fits = (!task || d.task === task) && (!label || d.label === label) &&
          (!state || (wanted[state] ? wanted[state](d) : d.tuned === state)) &&
          (!text || named || row.textContent.toLowerCase().includes(text));
        row.hidden = !fits;
        shown += fits;
      }
      for (const fold of card.querySelectorAll("details"))
        fold.open = active && Boolean(fold.querySelector(".ask:not([hidden])"));
      card.hidden = !shown;
      pictures += Boolean(shown);
      questions += shown;
    }
    count.textContent = `${pictures} pictures, ${questions} questions shown`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
})();
