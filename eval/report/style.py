"""How the report of scores looks beyond llava/common/html/style.py, and the script that filters its pictures.

Colours are told apart with any kind of colour vision (Okabe and Ito, 2008: blue, orange and yellow), and
never carry a meaning alone: base is dashed or hollow wherever tuned is solid.
"""

from __future__ import annotations

STYLE = """
:root{--tuned:#0067a5;--base:#b45f06;--blind:#5a646e;--good:#1b6b45;--bad:#a3281e}
@media(prefers-color-scheme:dark){:root{--tuned:#62b5ec;--base:#f0a63a;--blind:#9ba5ae;--good:#7fd0a2;--bad:#ff9d92}}
[hidden]{display:none!important}
:focus-visible{outline:3px solid var(--tuned);outline-offset:2px}
.standings{margin:0 0 1.25rem;padding:0;list-style:none;display:grid;gap:.6rem}
.standings>li{background:var(--card);border:1px solid var(--line);border-left-width:.5rem;border-radius:.5rem;
padding:.6rem 1rem}
.standings h2{border:0;margin:0;padding:0;font-size:1.05rem}
.standings ul{list-style:disc;margin:.15rem 0 0;padding-left:1.2rem}
.standings li li{margin:.15rem 0}
.rely{border-left-color:var(--good)!important}.rely>h2,.badge.rely{color:var(--good)}
.care{border-left-color:var(--warnline)!important}.care>h2,.badge.care{color:var(--warn)}
.unclear{border-left-color:var(--blind)!important}.unclear>h2,.badge.unclear{color:var(--blind)}
.not{border-left-color:var(--bad)!important}.not>h2,.badge.not{color:var(--bad)}
.badge{font-weight:600;white-space:nowrap;font-size:.9rem}
.verdicts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(24rem,100%),1fr));gap:1rem;
align-items:start}
.verdicts article{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.8rem 1rem}
.verdicts h3{margin:0;display:flex;justify-content:space-between;flex-wrap:wrap;gap:0 1rem}
.verdicts ul{padding-left:1.1rem;margin:.5rem 0 .2rem}
.verdicts li{margin:.3rem 0}
.range{position:relative;height:1.5rem;min-width:9rem;border-inline:1px solid var(--line);
background:linear-gradient(var(--line),var(--line)) center/1px 100% no-repeat}
.range i{position:absolute;print-color-adjust:exact}
.range .span{height:.3rem;border-radius:.15rem;opacity:.55;min-width:2px}
.range .dot{width:.66rem;height:.66rem;border-radius:50%;margin-left:-.33rem}
.range .tuned{background:var(--tuned)}.range .span.tuned{top:.36rem}.range .dot.tuned{top:.18rem}
.range .base{background:var(--base)}.range .span.base{top:1rem;height:.2rem}
.range .dot.base{top:.8rem;width:.58rem;height:.58rem;background:var(--card);border:2px solid var(--base)}
.range .blind{top:0;bottom:0;border-left:2px dashed var(--blind)}
.alone .span.tuned{top:.6rem}.alone .dot.tuned{top:.42rem}
.axis{display:flex;justify-content:space-between;font-weight:400}
.keys{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;align-items:center}
.keys i{display:inline-block;vertical-align:middle;margin-right:.35rem;print-color-adjust:exact}
.keys .dot{width:.66rem;height:.66rem;border-radius:50%}
.keys .tuned{background:var(--tuned)}.keys .dot.base{border:2px solid var(--base)}
.keys .blind{height:1rem;border-left:2px dashed var(--blind)}
.keys .frame{width:1.1rem;height:.8rem}
.better{color:var(--good);font-weight:600}.worse{color:var(--bad);font-weight:600}
.heat td{text-align:center;font-variant-numeric:tabular-nums;min-width:3rem;padding:.32rem .4rem;
background:color-mix(in srgb,var(--tuned) calc(var(--s,0)*85%),transparent);print-color-adjust:exact}
.heat td.dark{color:#fff}.heat td.right{font-weight:700;box-shadow:inset 0 0 0 2px var(--soft)}
.heat td.none,.heat th.none{border-left:3px double var(--line)}
.heat td.none{background:color-mix(in srgb,var(--warnline) calc(var(--s,0)*70%),transparent);color:inherit}
.heat thead th{text-align:center;max-width:7rem}.heat thead th:first-child{text-align:left}
.scroll tbody th[scope=row]{position:sticky;left:0;background:var(--paper);z-index:1;
border-bottom-color:transparent;box-shadow:inset 0 -1px var(--line)}
td.wide,th.wide{padding-left:.5rem}
@media(prefers-color-scheme:dark){.heat td.dark{color:#0b0f12}}
.heat table{width:auto}
.plots{display:flex;flex-wrap:wrap;gap:1rem 2rem}
.plots figure{padding:.6rem;flex:1 1 18rem;max-width:26rem}
.plots svg{width:100%;height:auto;display:block}
.plots figcaption{padding:.3rem .2rem}
.plots text{fill:var(--soft);font-size:10px}
.grid{stroke:var(--line);fill:none}.diagonal{stroke:var(--blind);stroke-dasharray:2 4;fill:none}
path.tuned{stroke:var(--tuned);fill:none;stroke-width:2}
.many{stroke-width:1.1!important}
.group th{font-weight:700;padding-top:1rem}
path.base{stroke:var(--base);fill:none;stroke-width:2;stroke-dasharray:6 3}
path.whisker{stroke-width:1.5;opacity:.6;stroke-dasharray:none}
circle.tuned{fill:var(--tuned)}circle.base{fill:var(--card);stroke:var(--base);stroke-width:1.5}
.chosen{fill:none;stroke:var(--ink);stroke-width:2}
.filter{display:flex;flex-wrap:wrap;gap:.6rem 1rem;align-items:end;margin:.8rem 0;padding:.8rem 1rem;
background:var(--card);border:1px solid var(--line);border-radius:.5rem}
.filter label{display:grid;font-size:.85rem;color:var(--soft);flex:1 1 10rem;max-width:100%}
.filter select,.filter input,.filter button{font:inherit;color:var(--ink);background:var(--paper);
border:1px solid var(--soft);border-radius:.3rem;padding:.35rem .5rem;width:100%;min-height:2.4rem}
.filter button{width:auto;cursor:pointer}
.cases{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(21rem,100%),1fr));gap:1rem;align-items:start}
.picture .pin{position:absolute;background:#000b;color:#fff;font-size:.7rem;line-height:1.2;padding:0 .25rem;
border-radius:.2rem}
.frame.truth,rect.truth{stroke:#ffe94a}.frame.tuned,rect.tuned{stroke:#4cc2ff}
.frame.base,rect.base{stroke:#ff8a2b;stroke-dasharray:7 4}
.frame.asked,rect.asked{stroke:#fff;stroke-dasharray:2 3}
i.frame.truth{border:2px solid #d9bf00}i.frame.tuned{background:none;border:2px solid #3aa9e0}
i.frame.base{border:2px dashed #e0781f}i.frame.asked{border:2px dotted var(--soft)}
.ask{padding:.55rem .8rem;border-top:1px solid var(--line);font-size:.92rem}
.ask p{margin:0;white-space:pre-line}
.ask dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem .7rem;margin:.3rem 0 0}
.ask dt{color:var(--soft)}.ask dd{margin:0;white-space:pre-line;min-width:0}
.mark{font-weight:600;white-space:nowrap}.mark.right{color:var(--good)}.mark.wrong{color:var(--bad)}
.mark.partly,.mark.unparsed{color:var(--warn)}
.ask-more{padding:0 .8rem}
.case summary{margin:0;padding:.55rem .8rem;border-top:1px solid var(--line);font-size:.9rem}
.case h3{margin:0;font:inherit}
code{font-size:.85em}
@media(max-width:34rem){.range{min-width:7rem}.verdicts article,.standings>li{padding:.6rem .75rem}}
@media print{.filter,nav{display:none}.scroll{overflow:visible}table{font-size:.72rem}
.verdicts,.cases{grid-template-columns:1fr 1fr}
article{break-inside:avoid}}
"""

# Rows that do not match are hidden, and with the last row of it a picture; what is folded is opened while
# something is asked for. Without the script everything is there, unfiltered.
SCRIPT = """
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
"""
