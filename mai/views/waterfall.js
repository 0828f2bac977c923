"use strict";
(() => {
  // Everything that a trace says goes into the page as text: no markup is ever made of it.
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const make = (tag, kind = "", text = "") => {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== "") node.textContent = text;
    return node;
  };

  // ---------------------------------------------------------------- the calls, of all runs, in one list

  const calls = [];
  for (const run of data.runs) {
    const base = calls.length;
    run.trace.calls.forEach((call, i) => {
      const parent = call.parent === undefined ? null : calls[base + call.parent];
      const made = {
        ...call, parent, index: base + i, depth: parent ? parent.depth + 1 : 0, children: 0, folded: false,
        path: ((parent ? parent.path : run.trace.within) + call.key), hit: false, shift: run.shift_ns,
        critical: false, self: run.self_ns[i], queue: run.queue_ns[i],
        from: call.start_ns === undefined ? null : call.start_ns + run.shift_ns,
        trace_id: call.trace_id ?? parent?.trace_id,
      };
      if (parent) parent.children += 1;
      calls.push(made);
    });
    for (const i of run.critical) calls[base + i].critical = true;
  }
  let first = Infinity, last = -Infinity;
  for (const call of calls) {
    if (call.from === null) continue;
    first = Math.min(first, call.from);
    last = Math.max(last, call.from, call.end_ns === undefined ? call.from : call.end_ns + call.shift);
  }
  if (first === Infinity) first = last = 0;
  if (last <= first) last = first + 1;
  for (const call of calls) {
    if (call.from !== null) call.to = call.end_ns === undefined ? last : call.end_ns + call.shift;
  }
  const glyphs = data.glyphs;
  const state = { selected: -1, open: false, only: false, query: "", hits: [], from: first, to: last };
  let visible = [];

  // ---------------------------------------------------------------- words

  const UNITS = [["h", 3.6e12], ["min", 6e10], ["s", 1e9], ["ms", 1e6], ["µs", 1e3], ["ns", 1]];
  const unitOf = (ns) => UNITS.find(([, size]) => Math.abs(ns) >= size) ?? UNITS[5];
  const digits = (value) => String(Number(value.toPrecision(3)));
  const time = (ns) => {
    if (ns === null || ns === undefined) return "";
    if (ns === 0) return "0 s";
    const [unit, size] = unitOf(ns);
    return `${digits(ns / size)} ${unit}`;
  };
  const bytes = (n) => {
    if (n === undefined) return "";
    for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
      if (n >= size) return `${digits(n / size)} ${unit} (${n.toLocaleString("en")} bytes)`;
    }
    return `${n} bytes`;
  };
  const tookOf = (call) => (call.from === null || call.end_ns === undefined ? null : call.to - call.from);
  const nameOf = (call) => (call.kind === "attempt" ? `${call.name} ${call.attempt ?? 1}` : call.name);
  const extra = (call) => {
    const facts = call.attributes ?? {}, parts = [];
    if (facts["mai.branch.key"] !== undefined) parts.push(String(facts["mai.branch.key"]));
    if (facts["mai.branch.index"] !== undefined) parts.push(`[${facts["mai.branch.index"]}]`);
    if (facts["mai.decision"] !== undefined) parts.push(`→ ${facts["mai.decision"]}`);
    const times = facts["mai.map.items"] ?? facts["mai.loop.turns"];
    if (times !== undefined) parts.push(`×${times}`);
    if (call.dropped) parts.push(`${call.dropped.toLocaleString("en")} not kept`);
    if (call.error && !call.children) parts.push(call.error.type);
    return parts.join("  ");
  };

  // ---------------------------------------------------------------- which rows there are

  function arrange() {
    visible = [];
    let under = Infinity;  // the depth below which nothing is shown
    for (const call of calls) {
      if (call.depth > under) continue;
      under = Infinity;
      if (state.only && !call.critical) { under = call.depth; continue; }
      call.row = visible.length;
      visible.push(call);
      if (call.folded) under = call.depth;
    }
    $("space").style.height = `${visible.length * rowHeight()}px`;
    $("rows").setAttribute("aria-rowcount", String(visible.length));
    draw();
  }
  const isShown = (call) => visible[call.row] === call;
  const rowHeight = () => (narrow.matches ? 44 : 26);
  const narrow = matchMedia("(max-width: 640px)");

  function reveal(call) {
    for (let around = call.parent; around; around = around.parent) around.folded = false;
    if (state.only && !call.critical) setOnly(false);
    arrange();
  }

  function select(call, { open = state.open } = {}) {
    if (!isShown(call)) reveal(call);
    state.selected = call.index;
    state.open = open;
    const rows = $("rows"), height = rowHeight(), top = call.row * height;
    details();
    if (top < rows.scrollTop) rows.scrollTop = top;
    if (top + height > rows.scrollTop + rows.clientHeight) rows.scrollTop = top + height - rows.clientHeight;
    draw();
  }

  // ---------------------------------------------------------------- drawing: only the rows in sight exist

  function draw() {
    const rows = $("rows"), height = rowHeight(), space = $("space");
    const begin = Math.max(0, Math.floor(rows.scrollTop / height) - 8);
    const end = Math.min(visible.length, Math.ceil((rows.scrollTop + rows.clientHeight) / height) + 8);
    const made = [];
    for (let i = begin; i < end; i += 1) made.push(rowOf(visible[i], i, height));
    space.replaceChildren(...made);
    const shown = state.selected >= 0 && isShown(calls[state.selected]);
    if (shown) rows.setAttribute("aria-activedescendant", `call-${state.selected}`);
    else rows.removeAttribute("aria-activedescendant");
    grid();
  }

  function rowOf(call, at, height) {
    const row = make("div", `row ${call.outcome}${call.critical ? " critical" : ""}`);
    if (state.query) row.classList.add(call.hit ? "hit" : "miss");
    row.id = `call-${call.index}`;
    row.setAttribute("role", "row");
    row.setAttribute("aria-level", String(call.depth + 1));
    row.setAttribute("aria-rowindex", String(at + 1));
    row.setAttribute("aria-selected", String(call.index === state.selected));
    if (call.children) row.setAttribute("aria-expanded", String(!call.folded));
    row.style.top = `${at * height}px`;
    row.dataset.index = call.index;
    const label = make("div", "label"), took = make("div", "took", time(tookOf(call)));
    const name = make("span", "name", nameOf(call));
    name.title = nameOf(call);
    label.style.paddingLeft = `${Math.min(call.depth * (narrow.matches ? 10 : 14), narrow.matches ? 120 : 210)}px`;
    label.append(
      make("span", "fold", call.children ? (call.folded ? "▸" : "▾") : ""),
      make("span", "glyph", glyphs[call.outcome] ?? "?"), name, make("span", "more", extra(call)),
    );
    label.setAttribute("role", "rowheader");
    took.setAttribute("role", "gridcell");
    row.append(label, took, barOf(call));
    row.setAttribute("aria-label", [nameOf(call), call.outcome, time(tookOf(call)), extra(call)].filter(Boolean).join(", "));
    return row;
  }

  function barOf(call) {
    const area = make("div", "time"), span = state.to - state.from;
    area.setAttribute("role", "gridcell");
    if (call.from === null || call.to < state.from || call.from > state.to) return area;
    const left = Math.max(0, (call.from - state.from) / span), right = Math.min(1, (call.to - state.from) / span);
    const bar = make("div", call.critical ? "bar critical" : "bar");
    bar.style.left = `min(${left * 100}%, calc(100% - 2px))`;
    bar.style.width = `${Math.max(0, right - left) * 100}%`;
    area.append(bar);
    for (const event of call.events ?? []) {
      const at = (event.at_ns + call.shift - state.from) / span;
      if (at < 0 || at > 1) continue;
      const mark = make("div", "event");
      mark.style.left = `${at * 100}%`;
      mark.title = event.name;
      area.append(mark);
    }
    return area;
  }

  function grid() {
    const ticks = $("ticks"), width = ticks.clientWidth, span = state.to - state.from;
    if (!width) return;
    const rough = span / Math.max(2, width / 92);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const begin = Math.ceil((state.from - first) / step) * step;
    const [unit, size] = unitOf(Math.max(step, (state.to - first) / 10));
    const made = [];
    for (let at = begin; at <= state.to - first + step * 1e-6; at += step) {
      const left = (at + first - state.from) / span * width;
      if (left > width - 58) break;
      const tick = make("span", "", `${Number((at / size).toPrecision(6))} ${unit}`);
      tick.style.left = `${left}px`;
      made.push(tick);
    }
    ticks.replaceChildren(...made);
    $("rows").style.setProperty("--step", `${step / span * width}px`);
    $("rows").style.setProperty("--offset", `${(begin + first - state.from) / span * width}px`);
  }

  // ---------------------------------------------------------------- the call that is selected

  function pairs(entries) {
    const list = make("dl");
    for (const [key, value] of entries) {
      if (value === undefined || value === null || value === "") continue;
      list.append(make("dt", "", key), make("dd", "", String(value)));
    }
    return list;
  }
  const told = (value) => (Array.isArray(value) ? value.map(told).join(", ") : String(value));

  function details() {
    const panel = $("details"), call = calls[state.selected];
    panel.hidden = !(state.open && call);
    if (panel.hidden) return;
    const close = make("button", "close", "✕"), title = make("h2", call.outcome);
    close.type = "button";
    close.setAttribute("aria-label", "Close the details");
    close.addEventListener("click", () => { select(call, { open: false }); $("rows").focus(); });
    title.append(make("span", "glyph", glyphs[call.outcome] ?? "?"), document.createTextNode(nameOf(call)));
    panel.replaceChildren(close, title, pairs([
      ["Outcome", call.outcome + (call.critical ? ", on the critical path" : "")],
      ["Step", call.path.replace(/^\//, "")], ["Kind", call.kind], ["Module", call.module],
      ["Attempt", call.attempt],
      ["Began", call.from === null ? "not known" : `${time(call.from - first)} after the beginning`],
      ["Took", time(tookOf(call)) || (call.outcome === "running" ? "still runs" : "")],
      ["Of its own", time(call.self)], ["Waited for its turn", call.queue ? time(call.queue) : ""],
      ["Input", bytes(call.input_size)], ["Output", bytes(call.output_size)], ["Items", call.items],
      ["Calls inside", call.children || ""], ["Not kept", call.dropped],
      ["Trace", call.span_id && call.trace_id], ["Span", call.span_id],
    ]));
    if (call.error) {
      const box = make("div", call.outcome);
      box.append(make("pre", "", `${call.error.type}: ${call.error.message}`));
      panel.append(make("h3", "", "Error"), box);
    }
    if (call.attributes) {
      panel.append(make("h3", "", "Attributes"), pairs(Object.entries(call.attributes).map(([k, v]) => [k, told(v)])));
    }
    if (call.events) {
      panel.append(make("h3", "", "Events"), pairs(call.events.map((event) => [
        time(event.at_ns + call.shift - call.from) || "0 s",
        [event.name, ...Object.entries(event.attributes ?? {}).map(([k, v]) => `${k}=${told(v)}`)].join(" "),
      ])));
    }
    if (call.links) {
      panel.append(make("h3", "", "Links"), pairs(call.links.map((link) => [link.relation, `${link.trace_id} ${link.span_id}`])));
    }
    if (call.from !== null) {
      const zoom = make("button", "", "Zoom to its time");
      zoom.type = "button";
      zoom.addEventListener("click", () => zoomTo(call));
      const line = make("p", "hint");
      line.append(zoom);
      panel.append(line);
    }
  }

  function zoomTo(call) {
    const whole = !call || call.from === null;
    const room = whole ? 0 : Math.max(1, (call.to - call.from) * 0.03);
    state.from = whole ? first : Math.max(first, call.from - room);
    state.to = whole ? last : Math.min(last, call.to + room);
    if (state.to <= state.from) state.to = state.from + 1;
    $("whole").hidden = state.from === first && state.to === last;
    draw();
  }

  // ---------------------------------------------------------------- finding and folding

  function find(query) {
    state.query = query.trim().toLowerCase();
    state.hits = [];
    for (const call of calls) {
      const texts = [call.name, call.outcome, call.kind, call.error?.type, call.error?.message];
      call.hit = state.query !== "" && texts.some((text) => text?.toLowerCase().includes(state.query));
      if (call.hit) state.hits.push(call.index);
    }
    report();
    arrange();
  }
  function report() {
    const at = state.hits.indexOf(state.selected);
    $("found").textContent = !state.query ? "" : at < 0 ? `${state.hits.length.toLocaleString("en")}` : `${at + 1}/${state.hits.length}`;
  }
  function step(by) {
    const { hits, selected } = state;
    if (!hits.length) return;
    const ahead = by > 0 ? hits.find((i) => i > selected) : hits.findLast((i) => i < selected);
    select(calls[ahead ?? (by > 0 ? hits[0] : hits.at(-1))]);
    report();
  }
  function foldAll(folded) {
    for (const call of calls) call.folded = folded && call.children > 0 && call.depth > 0;
    if (folded && state.selected >= 0) {
      let call = calls[state.selected];
      for (let around = call.parent; around; around = around.parent) if (around.folded) call = around;
      state.selected = call.index;
    }
    arrange();
    if (state.selected >= 0) select(calls[state.selected]);
  }
  function setOnly(only) {
    state.only = only;
    $("only").setAttribute("aria-pressed", String(only));
    if (only && state.selected >= 0) {
      let call = calls[state.selected];
      while (call.parent && !call.critical) call = call.parent;
      state.selected = call.index;
    }
    arrange();
    details();
  }
  function toggle(call, folded = !call.folded) {
    if (call.children) { call.folded = folded; arrange(); }
  }

  // ---------------------------------------------------------------- hands

  const moves = {
    ArrowDown: (at) => at + 1, ArrowUp: (at) => at - 1, Home: () => 0, End: () => visible.length - 1,
    PageDown: (at) => at + page(), PageUp: (at) => at - page(),
  };
  const page = () => Math.max(1, Math.floor($("rows").clientHeight / rowHeight()) - 1);
  const keys = {
    ArrowRight: (call) => (call.folded ? toggle(call, false) : call.children && select(visible[call.row + 1] ?? call)),
    ArrowLeft: (call) => (call.children && !call.folded ? toggle(call, true) : call.parent && select(call.parent)),
    Enter: (call) => select(call, { open: !state.open }), " ": (call) => select(call, { open: !state.open }),
    z: zoomTo,
  };
  const anywhere = {
    n: () => step(1), N: () => step(-1), e: () => foldAll(false), c: () => foldAll(true), p: () => setOnly(!state.only),
    Z: () => zoomTo(null), "/": () => { $("find").focus(); $("find").select(); },
    Escape: () => { if (state.open) select(calls[state.selected], { open: false }); $("rows").focus(); },
  };
  $("rows").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !visible.length) return;
    const call = calls[state.selected], move = moves[event.key];
    if (!move && !(keys[event.key] && call)) return;
    event.preventDefault();
    if (move) select(visible[Math.max(0, Math.min(visible.length - 1, move(call && isShown(call) ? call.row : -1)))]);
    else keys[event.key](call);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target === $("find");
    if (event.ctrlKey || event.metaKey || event.altKey || (typing && event.key !== "Escape")) return;
    if (!anywhere[event.key]) return;
    event.preventDefault();
    anywhere[event.key]();
  });
  $("rows").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    const call = calls[Number(row.dataset.index)];
    if (event.target.classList.contains("fold") && call.children) toggle(call);
    else select(call, { open: true });
  });
  $("rows").addEventListener("dblclick", (event) => {
    const row = event.target.closest(".row");
    if (row) zoomTo(calls[Number(row.dataset.index)]);
  });
  $("find").addEventListener("input", (event) => find(event.target.value));
  $("find").addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); step(event.shiftKey ? -1 : 1); }
  });
  $("next").addEventListener("click", () => step(1));
  $("fold").addEventListener("click", () => foldAll(true));
  $("unfold").addEventListener("click", () => foldAll(false));
  $("only").addEventListener("click", () => setOnly(!state.only));
  $("whole").addEventListener("click", () => zoomTo(null));
  $("rows").addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", arrange);
  narrow.addEventListener("change", arrange);

  // ---------------------------------------------------------------- the beginning

  const count = calls.length.toLocaleString("en"), dropped = calls.reduce((sum, call) => sum + (call.dropped ?? 0), 0);
  const began = data.runs[0]?.trace.started_at;
  const summary = $("summary"), roots = calls.filter((call) => !call.parent);
  if (roots.length === 1) summary.append(make("span", `outcome ${roots[0].outcome}`, `${glyphs[roots[0].outcome] ?? "?"} ${roots[0].outcome}`));
  summary.append([
    roots.length === 1 ? "" : `${roots.length} runs`, roots.length === 1 ? time(tookOf(roots[0])) : time(last - first),
    `${count} ${calls.length === 1 ? "call" : "calls"}`, dropped ? `${dropped.toLocaleString("en")} more were not kept` : "",
    began === null || began === undefined ? "" : new Date(began * 1000).toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC"),
  ].filter(Boolean).map((text, i) => (i || roots.length === 1 ? `  ·  ${text}` : text)).join(""));
  const legend = $("legend");
  for (const outcome of Object.keys(glyphs).filter((name) => calls.some((call) => call.outcome === name))) {
    const entry = make("span", outcome);
    entry.append(make("span", "sample"), document.createTextNode(`${glyphs[outcome]} ${outcome}`));
    legend.append(entry);
  }
  const line = make("span");
  line.append(make("span", "sample critical"), document.createTextNode("critical path"));
  legend.append(line, make("span", "keys", "Keys: ↑ ↓ ← → move and fold, Enter details, z zoom, Z whole time, / find, n next"));
  for (const part of [$("tools"), document.querySelector("main"), legend]) part.hidden = false;

  const wanted = new URLSearchParams(location.hash.slice(1));
  arrange();
  if (wanted.get("only") !== null) setOnly(true);
  if (wanted.get("fold") !== null) foldAll(true);
  if (wanted.get("q")) { $("find").value = wanted.get("q"); find(wanted.get("q")); step(1); }
  const asked = calls[Number(wanted.get("call") ?? NaN)];
  if (asked) select(asked, { open: true });
  if (asked && wanted.get("zoom") !== null) zoomTo(asked);
})();
