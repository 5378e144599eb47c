(() => {
  const list = document.getElementById("cards"), bar = document.getElementById("bar");
  const form = document.getElementById("filter"), count = document.getElementById("count");
  const kind = document.getElementById("kind"), note = document.getElementById("note");
  const saved = document.getElementById("saved"), progress = document.getElementById("progress");
  const inFolderOrder = [...list.children];
  const cards = new Map(inFolderOrder.map((card) => [card.dataset.id, card]));
  const points = new Map([...document.querySelectorAll(".plan a")].map((a) => [a.dataset.finding, a]));
  const { survey, photosFolder } = list.dataset;
  const place = `llava-inspect survey ${survey}`;
  let current = null, shown = [];

  // What a person says, by finding: {verdict, kind, note}; kept in the browser until it is saved as a file.
  let said = {};
  let keeps = true;
  try {
    said = JSON.parse(localStorage.getItem(place) || "{}");
  } catch {
    keeps = false;
  }
  const keep = () => {
    try {
      localStorage.setItem(place, JSON.stringify(said));
    } catch {
      keeps = false;
    }
    report();
  };

  const words = { accept: "accepted", reject: "rejected" };
  const report = () => {
    const done = Object.values(said).filter((entry) => entry.verdict).length;
    saved.textContent = `${done} of ${cards.size} looked at` + (keeps ? "" : "; this browser keeps nothing: save often");
    progress.textContent = done ? `A person has looked at ${done} of ${cards.size} findings.` : "";
  };
  const show = (card) => {
    const entry = said[card.dataset.id] || {};
    const line = card.querySelector(".verdict");
    const verdict = entry.verdict === "correct" ? `corrected: ${entry.kind}` : words[entry.verdict];
    line.textContent = [verdict, entry.note && `note: ${entry.note}`].filter(Boolean).join("; ");
    line.hidden = !line.textContent;
    card.classList.toggle("reviewed", Boolean(entry.verdict));
    if (card === current) {
      kind.value = entry.verdict === "correct" ? entry.kind : "";
      note.value = entry.note || "";
    }
  };
  const say = (card, change) => {
    const entry = { ...said[card.dataset.id], ...change };
    if (entry.verdict !== "correct") delete entry.kind;
    for (const key of Object.keys(entry)) if (!entry[key]) delete entry[key];
    if (Object.keys(entry).length) said[card.dataset.id] = entry;
    else delete said[card.dataset.id];
    keep();
    show(card);
  };

  const choose = (card, scroll = true) => {
    if (current) {
      current.classList.remove("current");
      points.get(current.dataset.id)?.classList.remove("current");
    }
    current = card || null;
    if (!current) return;
    current.classList.add("current");
    points.get(current.dataset.id)?.classList.add("current");
    show(current);
    if (scroll) current.scrollIntoView({ block: "nearest" });
  };
  const step = (by) => {
    const at = shown.indexOf(current);
    choose(shown[at < 0 ? 0 : Math.min(Math.max(at + by, 0), shown.length - 1)]);
  };

  const probability = (card) => (card.dataset.p === "" ? null : Number(card.dataset.p));
  const orders = {
    "": (a, b) => (probability(b) ?? -1) - (probability(a) ?? -1),
    unsure: (a, b) => (probability(a) ?? 2) - (probability(b) ?? 2),
    time: (a, b) => ((a.dataset.time || "~") < (b.dataset.time || "~") ? -1 : 1),
    folder: () => 0,
  };
  const apply = () => {
    const wanted = Object.fromEntries(new FormData(form));
    const text = wanted.words.trim().toLowerCase();
    const ordered = [...inFolderOrder].sort(orders[wanted.order]);
    shown = [];
    for (const card of ordered) {
      const d = card.dataset, done = Boolean(said[d.id]?.verdict);
      const fits = (!wanted.decision || d.decision === wanted.decision) &&
        (!wanted.kind || d.kind === wanted.kind) && (!wanted.folder || d.folder === wanted.folder) &&
        (!wanted.state || done === (wanted.state === "done")) &&
        (!text || d.photo.toLowerCase().includes(text) || card.textContent.toLowerCase().includes(text));
      card.hidden = !fits;
      if (points.has(d.id)) points.get(d.id).style.display = fits ? "" : "none";
      if (fits) shown.push(card);
    }
    list.append(...ordered);
    count.textContent = `${shown.length} of ${cards.size} findings shown`;
    if (!shown.includes(current)) choose(shown[0], false);
  };

  const actions = {
    j: () => step(1),
    k: () => step(-1),
    a: () => verdict("accept"),
    r: () => verdict("reject"),
    c: () => kind.focus(),
    n: () => note.focus(),
    u: () => current && (delete said[current.dataset.id], keep(), show(current)),
  };
  // That there is something, but not what, is nothing to train on: then the kind is asked for.
  const isVague = ({ decision, kind }, what) => (what === "reject" ? decision === "sound" : decision !== "sound" && !kind);
  const verdict = (what) => {
    if (!current) return;
    if (kind.options.length > 1 && isVague(current.dataset, what)) {
      saved.textContent = "something is there: choose what it is";
      kind.focus();
      return;
    }
    say(current, { verdict: what });
    step(1);
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea");
    if (typing) {
      if ((event.key === "Escape" || event.key === "Enter") && typing.closest("#bar")) typing.blur();
      return;
    }
    const action = Object.hasOwn(actions, event.key) && actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  bar.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-key]");
    if (button) actions[button.dataset.key]();
  });
  kind.addEventListener("change", () => {
    if (current && kind.value) say(current, { verdict: "correct", kind: kind.value });
    kind.blur();
  });
  note.addEventListener("input", () => current && say(current, { note: note.value.trim() && note.value }));
  list.addEventListener("click", (event) => {
    const card = event.target.closest("figure");
    if (card && !event.target.closest("a, summary")) choose(card);
  });

  document.getElementById("save").addEventListener("click", () => {
    const corrections = [];
    for (const card of inFolderOrder) {
      const { id, photo, decision } = card.dataset, { verdict, note = "", ...entry } = said[id] || {};
      if (!verdict) continue;
      // What is accepted is repeated; the box was in view when the kind was corrected.
      const kind = { accept: card.dataset.kind, correct: entry.kind }[verdict] || null;
      const box = kind && card.dataset.box ? JSON.parse(card.dataset.box) : null;
      const more_photos = JSON.parse(card.dataset.more);
      corrections.push({ finding: id, photo, decision, verdict, kind, box, note, more_photos });
    }
    const file = { format: "llava-inspect corrections", version: 1, survey, photos_folder: photosFolder, corrections };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }));
    link.download = `corrections-${survey}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    const alone = Object.values(said).filter((entry) => !entry.verdict).length;
    if (alone) saved.textContent = `${alone} notes stand without accept, reject or correct: they are not in the file`;
  });
  document.getElementById("load").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    let loaded;
    try {
      loaded = JSON.parse(await file.text());
    } catch {
      loaded = {};
    }
    if (loaded?.format !== "llava-inspect corrections" || !Array.isArray(loaded.corrections)) {
      saved.textContent = `${file.name} holds no corrections`;
    } else if (loaded.survey !== survey) {
      saved.textContent = `${file.name} is of another survey`;
    } else {
      for (const { finding, verdict, kind, note } of loaded.corrections)
        if (cards.has(finding))
          said[finding] = { verdict, ...(verdict === "correct" && { kind }), ...(note && { note }) };
      keep();
      inFolderOrder.forEach(show);
      apply();
    }
  });

  const follow = () => {
    const card = cards.get(location.hash.slice(3));
    if (!card) return;
    if (card.hidden) form.reset();
    apply();
    choose(card);
  };
  for (const part of [form, bar, document.getElementById("keep")]) part.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  addEventListener("hashchange", follow);
  inFolderOrder.forEach(show);
  report();
  apply();
  follow();
})();
