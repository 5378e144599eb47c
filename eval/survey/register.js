(() => {
  const list = document.getElementById("cards"), bar = document.getElementById("bar");
  const form = document.getElementById("filter"), count = document.getElementById("count");
  const kind = document.getElementById("kind"), note = document.getElementById("note");
  const saved = document.getElementById("saved"), progress = document.getElementById("progress");
  const section = document.getElementById("findings"), prompt = document.getElementById("prompt");
  const inFolderOrder = [...list.children];
  const cards = new Map(inFolderOrder.map((card) => [card.dataset.id, card]));
  const points = new Map([...document.querySelectorAll(".plan a")].map((a) => [a.dataset.finding, a]));
  const { survey, photosFolder } = list.dataset;
  const place = `llava-inspect survey ${survey}`;
  let current = null, shown = [];

  // What a person says, by finding: {verdict, kind, box, note}; kept in the browser until it is saved as a file. A box
  // is there where it is not the survey's, null for none; without a verdict it waits for a kind.
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
    const box = entry.box === undefined ? "" : entry.box ? "a box was drawn" : "without a box";
    const unnamed = box && !verdict && "what is in it?";
    line.textContent = [verdict, box, unnamed, entry.note && `note: ${entry.note}`].filter(Boolean).join("; ");
    line.hidden = !line.textContent;
    card.classList.toggle("reviewed", Boolean(entry.verdict));
    drawBox(card.querySelector(".picture"), entry.box);
    if (card === current) {
      kind.value = entry.verdict === "correct" ? entry.kind : "";
      note.value = entry.note || "";
      if (large.isOpen) large.show(card, entry.box);
    }
  };
  const say = (card, change) => {
    const entry = { ...said[card.dataset.id], ...change };
    if (entry.verdict !== "correct") delete entry.kind;
    if (words[entry.verdict]) delete entry.box;
    for (const key of Object.keys(entry)) if (entry[key] === "" || entry[key] === undefined) delete entry[key];
    ask("");
    if (Object.keys(entry).length) said[card.dataset.id] = entry;
    else delete said[card.dataset.id];
    keep();
    show(card);
  };

  const surveyBox = (card) => (card.dataset.box ? JSON.parse(card.dataset.box) : undefined);
  // Takes down a box for the current finding: null for none, undefined for the survey's.
  const putBox = (box) => {
    const { verdict, kind: named } = said[current.dataset.id] || {};
    const what = named || (verdict !== "reject" && current.dataset.kind);
    say(current, { verdict: what ? "correct" : "", kind: what || "", box });
    if (!what && box) askForKind();
  };
  const askForKind = () => {
    ask("Something is there: choose what it is.");
    kind.focus();
  };
  const ask = (text) => {
    prompt.textContent = text;
    prompt.hidden = !text;
  };
  const large = makeLargeView(document.getElementById("large"), putBox);
  const setLarge = (open) => {
    if (open) large.open(current, said[current.dataset.id]?.box);
    else large.close();
    section.classList.toggle("enlarged", open);
    document.documentElement.classList.toggle("still", open);
    for (const part of [list, form, document.getElementById("keep")]) part.inert = open;
  };

  const choose = (card, scroll = true) => {
    ask("");
    if (current) {
      current.classList.remove("current");
      points.get(current.dataset.id)?.classList.remove("current");
    }
    current = card || null;
    if (!current) return large.isOpen && setLarge(false);
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
    b: () => current && setLarge(!large.isOpen),
    x: () => {
      if (!current) return;
      const found = surveyBox(current), { box = found } = said[current.dataset.id] || {};
      if (box) putBox(found && null);
    },
    m: () => section.classList.toggle("mapped"),
    Escape: () => large.isOpen && setLarge(false),
    n: () => note.focus(),
    u: () => current && (delete said[current.dataset.id], keep(), show(current)),
  };
  // That there is something, but not what, is nothing to train on: then the kind is asked for.
  const isVague = ({ decision, kind }, what) => (what === "reject" ? decision === "sound" : decision !== "sound" && !kind);
  const verdict = (what) => {
    if (!current) return;
    if (kind.options.length > 1 && isVague(current.dataset, what)) {
      askForKind();
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
  document.getElementById("foot").addEventListener("click", (event) => {
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
      const { box = surveyBox(card) ?? null } = kind ? entry : { box: null };
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
    if (alone)
      saved.textContent = `${alone} findings have a note or a box, but no accept, reject or correct: they are not in the file`;
  });
  const isBox = (box) => {
    if (!Array.isArray(box) || box.length !== 4 || !box.every(Number.isFinite)) return false;
    const [x1, y1, x2, y2] = box;
    return 0 <= x1 && x1 < x2 && x2 <= 1 && 0 <= y1 && y1 < y2 && y2 <= 1;
  };
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
    } else if (!loaded.corrections.every(({ box }) => !box || isBox(box))) {
      saved.textContent = `${file.name} has a box that is not x1, y1, x2, y2 in 0..1, with x1 < x2 and y1 < y2`;
    } else {
      for (const { finding, verdict, kind, box = null, note } of loaded.corrections) {
        const card = cards.get(finding);
        if (!card) continue;
        const isOwn = JSON.stringify(box) !== JSON.stringify(surveyBox(card) ?? null);
        const corrected = verdict === "correct" && { kind, ...(isOwn && { box }) };
        said[finding] = { verdict, ...corrected, ...(note && { note }) };
      }
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
  for (const part of [form, document.getElementById("foot"), document.getElementById("keep")]) part.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  addEventListener("hashchange", follow);
  inFolderOrder.forEach(show);
  report();
  apply();
  follow();
})();
