(() => {
  const dialog = document.createElement("dialog");
  dialog.className = "large";
  dialog.addEventListener("click", () => dialog.close());
  document.body.append(dialog);
  const enlarge = (picture) => {
    const image = picture.querySelector("img"), copy = picture.cloneNode(true);
    for (const name of ["tabindex", "role", "aria-label"]) copy.removeAttribute(name);
    copy.style.width = `min(94vw, ${(80 * image.naturalWidth) / image.naturalHeight}vh)`;
    const name = document.createElement("p");
    name.textContent = picture.closest(".case").querySelector("h3").textContent;
    const legend = copy.querySelector("svg") && document.querySelector(".boxes");
    dialog.replaceChildren(copy, name, ...(legend ? [legend.cloneNode(true)] : []));
    dialog.showModal();
  };
  for (const picture of document.querySelectorAll(".picture:has(img)")) {
    picture.tabIndex = 0;
    picture.setAttribute("role", "button");
    picture.setAttribute("aria-label", `Enlarge: ${picture.querySelector("img").alt}`);
    picture.addEventListener("click", () => enlarge(picture));
    picture.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      enlarge(picture);
    });
  }
})();
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
