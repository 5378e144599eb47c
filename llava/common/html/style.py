"""How a report looks: plain, readable on a phone, dark where the reader's system is."""

STYLE = """
:root{color-scheme:light dark;--paper:#fafaf8;--card:#fff;--ink:#1c2126;--soft:#5a646e;--line:#dcdfe1;
--bar:#3d6f99;--bar2:#a9c5da;--bar3:#7d8a94;--bar4:#c9ced2;--track:#eceeef;--warn:#8a4b00;--warnbg:#fff5e2;--warnline:#e9b657;
--ok:#2c6e49}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--card:#1c2024;--ink:#e4e7e9;--soft:#9ba5ae;
--line:#343a40;--bar:#6fa8d6;--bar2:#3a5a75;--bar3:#8b96a0;--bar4:#505a63;--track:#2a2f34;--warn:#ffc978;--warnbg:#2e2513;
--warnline:#8a6620;--ok:#7fd0a2}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;
overflow-wrap:anywhere}
main,header,nav{max-width:70rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 1rem}
h2{font-size:1.25rem;margin:2.75rem 0 .5rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.5rem 0 .4rem}
p{max-width:46rem;margin:.4rem 0}
.soft,.caption,figcaption{color:var(--soft);font-size:.9rem}
nav{padding-top:1rem;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.95rem}
a{color:var(--bar)}
dl.facts{display:flex;flex-wrap:wrap;gap:.75rem;margin:0}
dl.facts div{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.55rem .9rem;
min-width:8rem;max-width:100%}
dl.facts dt{color:var(--soft);font-size:.85rem}
dl.facts dd{margin:0;font-size:1.15rem;font-weight:600}
.attention{background:var(--warnbg);border:1px solid var(--warnline);border-radius:.5rem;padding:.8rem 1.1rem;
margin:1.25rem 0 0}
.attention h2{border:0;margin:0;padding:0;font-size:1rem;color:var(--warn)}
.attention ul{margin:.4rem 0 0;padding-left:1.2rem}
.attention li{margin:.35rem 0;max-width:56rem}
.fine{border-color:var(--line);background:var(--card)}
.scroll{overflow-x:auto;overflow-wrap:normal}
table{border-collapse:collapse;font-size:.95rem;width:100%;margin:.5rem 0}
.caption{margin:1rem 0 0}
th,td{text-align:left;padding:.32rem .9rem .32rem 0;border-bottom:1px solid var(--line);
vertical-align:middle}
thead th{font-weight:600;color:var(--soft);font-size:.85rem;vertical-align:bottom}
tbody th{font-weight:500;min-width:7rem;max-width:22rem;overflow-wrap:anywhere}
.number{text-align:right;font-variant-numeric:tabular-nums}td.number{white-space:nowrap}
.wide{width:45%;min-width:9rem}
.share{min-width:5rem;font-variant-numeric:tabular-nums}
summary{font-weight:600;margin:1.5rem 0 .4rem;cursor:pointer}
.bar{display:flex;height:.8rem;background:var(--track);border-radius:.2rem;overflow:hidden}
.bar i{display:block}
i.first{background:var(--bar)}i.second{background:var(--bar2)}i.third{background:var(--bar3)}
i.fourth{background:var(--bar4)}i.thin{background:var(--warnline)}
.warn{color:var(--warn);font-weight:600}.ok{color:var(--ok)}
.patch td,.patch th{border-bottom:2px dashed var(--warnline)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(19rem,100%),1fr));gap:1rem;
margin:.75rem 0;align-items:start}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:.5rem;overflow:hidden}
figcaption,.talk{padding:.55rem .8rem}
figcaption b{color:var(--ink);font-weight:600}
.picture{position:relative;line-height:0;background:var(--track)}
.picture img{width:100%;height:auto}
.picture svg{position:absolute;inset:0;width:100%;height:100%}
.picture rect{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
.picture rect.under{stroke:#0009;stroke-width:4}
.picture p{line-height:1.4;padding:2rem 1rem;margin:0;text-align:center}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:2px}
.pair .picture{display:flex;align-items:center;justify-content:center}
.tag{display:inline-block;border:1px solid var(--line);border-radius:1rem;padding:0 .55rem;font-size:.8rem;
color:var(--soft);white-space:nowrap}
.swatch{display:inline-block;width:.7rem;height:.7rem;border-radius:.15rem;margin-right:.3rem}
.key{margin-right:.8rem;display:inline-block}
.talk{margin:0;border-top:1px solid var(--line);font-size:.92rem}
.talk dt{margin-top:.45rem}.talk dt:first-child{margin-top:0}
.talk dd{margin:0 0 0 .9rem;font-weight:600;white-space:pre-line}
ul.lines{font-size:.9rem;padding-left:1.2rem}
ul.lines li{margin:.15rem 0}
footer{max-width:70rem;margin:3rem auto 2rem;padding:0 1.25rem;color:var(--soft);font-size:.85rem}
@media(max-width:34rem){h1{font-size:1.4rem}.wide{min-width:6rem}.answers{min-width:15rem}th,td{padding-right:.6rem}}
@media print{.cards{grid-template-columns:1fr 1fr}figure,tr{break-inside:avoid}}
"""
