// The operator's page: shows what /live says. Every text goes in by textContent, so a file's name can do nothing here.
"use strict";

const LOST_MS = 5000;
const SYMBOLS = { pass: "✓", fail: "✗", unknown: "?" };
const at = (id) => document.getElementById(id);

let heard = 0; // when /live last said something
let boards = [];
let chosen = null; // the board that somebody looks at; null: the line's last one
let shown = null;
let stream = null;

function text(id, words) {
  if (at(id).textContent !== words) at(id).textContent = words;
}

function made(tag, name, words) {
  const one = document.createElement(tag);
  if (name) one.className = name;
  if (words !== undefined) one.textContent = words;
  return one;
}

function time(iso) {
  return new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

function picture(board) {
  return `boards/${encodeURIComponent(board.event_id)}/image`;
}

function showBoard() {
  const board = boards.find((one) => one.event_id === chosen) || boards[0];
  if (!board) {
    text("word", "NO BOARD YET");
    return;
  }
  if (board.event_id !== chosen) chosen = null;
  const image = at("picture");
  if (shown !== board.event_id) {
    shown = board.event_id;
    at("verdict").className = `${board.verdict} fresh`;
    text("symbol", SYMBOLS[board.verdict]);
    text("word", board.verdict.toUpperCase());
    image.hidden = true;
    text("nopicture", "");
    image.onload = () => { image.hidden = false; };
    image.onerror = () => { image.hidden = true; text("nopicture", "no picture was kept of this board"); };
    image.alt = `Board ${board.seq} with what was found on it: ${board.reason}`;
    if (board.picture) image.src = picture(board);
    else text("nopicture", "no picture was kept of this board");
    text("said", "");
  }
  text("reason", board.reason);
  const of = board.board_serial || board.file || "";
  text("about", `Board ${board.seq}${of ? `, ${of}` : ""}, ${time(board.at)}`);
  at("review").hidden = false;
  at("follow").hidden = chosen === null;
  const call = board.review && board.review.call;
  at("confirm").setAttribute("aria-pressed", String(call === "confirmed"));
  at("wrong").setAttribute("aria-pressed", String(call === "false"));
}

function choose(board) {
  chosen = board && board.event_id !== boards[0].event_id ? board.event_id : null;
  showBoard();
  mark();
}

function mark() {
  for (const one of at("last").children) one.setAttribute("aria-current", String(one.dataset.id === shown));
}

function showLast() {
  const nav = at("last");
  const now = boards.map((one) => one.event_id).join();
  if (nav.dataset.now !== now) {
    const focused = document.activeElement && document.activeElement.dataset.id;
    nav.dataset.now = now;
    const kept = new Map([...nav.children].map((one) => [one.dataset.id, one]));
    nav.replaceChildren(...boards.map((board) => kept.get(board.event_id) || thumbnail(board)));
    const again = [...nav.children].find((one) => one.dataset.id === focused);
    if (again) again.focus();
  }
  mark();
}

function thumbnail(board) {
  const button = made("button", board.verdict);
  button.type = "button";
  button.dataset.id = board.event_id;
  button.setAttribute("aria-label", `Board ${board.seq}: ${board.verdict}, ${board.reason}`);
  const symbol = made("span", "big", SYMBOLS[board.verdict]);
  if (board.picture) {
    const image = made("img");
    image.alt = "";
    image.onerror = () => image.replaceWith(symbol);
    image.src = picture(board);
    button.append(image);
  } else {
    button.append(symbol);
  }
  button.append(made("small", "", `${SYMBOLS[board.verdict]} ${board.seq}`));
  button.addEventListener("click", () => choose(board));
  return button;
}

function showStates(now) {
  const broker = now.broker;
  const owed = broker.owed ? `${broker.owed} owed, oldest ${span(broker.oldest_s)}` : "nothing owed";
  const away = (word) => now.faults.some((one) => one.code.startsWith(word));
  const states = [
    ["Line", now.ready ? "inspects" : Object.values(now.not_ready)[0] || "does not inspect", now.ready ? "" : "bad"],
    [
      now.source.kind === "camera" ? "Camera" : "Folder",
      now.source.kind === "camera" ? (away("camera") ? "away" : "takes pictures") : `${now.source.backlog} waiting`,
      away("camera") || away("line_failing") ? "bad" : "",
    ],
    ["Broker", `${broker.where === "off" ? "off" : broker.connected ? "connected" : "away"}; ${owed}`,
      broker.where === "off" ? "off" : broker.connected ? "" : "warn"],
    ["Gate", now.gate === "off" ? "none" : away("gate") || away("serial") || !now.ready ? "safe" : now.gate,
      now.gate === "off" ? "off" : away("gate") || away("serial") || !now.ready ? "bad" : ""],
    ["Watchdog", now.stalled.length ? `stalled: ${now.stalled.join(", ")}` : "all loops move", now.stalled.length ? "bad" : ""],
  ];
  at("states").replaceChildren(...states.map(([name, what, kind]) => {
    const one = made("div", kind);
    one.append(made("b", "", name), made("span", "", what));
    return one;
  }));
}

function showTrend(bars) {
  const total = { pass: 0, fail: 0, unknown: 0 };
  at("trend").replaceChildren(...bars.map((bar) => {
    const column = made("div");
    for (const kind of ["unknown", "fail", "pass"]) {
      total[kind] += bar[kind];
      const part = made("i", kind);
      part.style.setProperty("height", `${bar[kind] * 10}%`);
      column.append(part);
    }
    return column;
  }));
  const all = total.pass + total.fail + total.unknown;
  text("trendtitle", `Last ${all} boards`);
  text("trendtext", all ? `${total.pass} pass, ${total.fail} fail, ${total.unknown} unknown; ten a bar, newest on the right` : "none yet");
}

function showPareto(labels) {
  const most = labels.length ? labels[0].boards : 1;
  const rows = labels.slice(0, 8).map((one) => {
    const row = made("div");
    const bar = made("i");
    bar.style.setProperty("width", `${(100 * one.boards) / most}%`);
    row.append(made("span", "", one.label), bar, made("b", "", String(one.boards)));
    return row;
  });
  at("pareto").replaceChildren(...(rows.length ? rows : [made("p", "quiet", "none")]));
}

function show(now) {
  boards = now.boards;
  document.title = boards.length ? `${SYMBOLS[boards[0].verdict]} ${now.station}` : now.station;
  text("station", now.station);
  text("judges", `${now.model}, recipe ${now.recipe}`);
  text("clock", time(now.at));
  text("boards", String(now.today.boards));
  text("yield", now.today.yield === null ? "–" : `${now.today.yield} %`);
  text("fails", String(now.today.counts.fail));
  text("unknowns", String(now.today.counts.unknown));
  const faults = now.faults.map((one) => made("li", "", `${one.code}: ${one.detail}`));
  const list = at("faults");
  const words = faults.map((one) => one.textContent).join("\n");
  if (list.dataset.words !== words) {
    list.dataset.words = words;
    list.replaceChildren(...faults);
    list.hidden = !faults.length;
  }
  showStates(now);
  showTrend(now.trend);
  showPareto(now.pareto);
  showBoard();
  showLast();
}

function alive() {
  heard = performance.now();
  at("lost").hidden = true;
  document.body.classList.remove("old");
}

function lost(words) {
  text("lost", words);
  at("lost").hidden = false;
  document.body.classList.add("old");
}

function listen() {
  if (stream) stream.close();
  stream = new EventSource("live");
  stream.onmessage = (message) => { alive(); show(JSON.parse(message.data)); };
  stream.addEventListener("trouble", (message) => { heard = performance.now(); lost(JSON.parse(message.data).detail); });
  stream.onerror = async () => {
    if (stream.readyState !== EventSource.CLOSED) return;
    const answer = await fetch("boards?limit=1").catch(() => null);
    if (answer && (answer.status === 401 || answer.status === 403)) askForKey();
    else setTimeout(listen, 1000);
  };
}

function askForKey() {
  if (!at("login").open) at("login").showModal();
}

async function logIn(event) {
  event.preventDefault();
  const answer = await fetch("login", { method: "POST", body: new URLSearchParams({ key: at("key").value }) });
  if (answer.ok) {
    at("key").value = "";
    text("loginsaid", "");
    at("login").close();
    listen();
  } else {
    text("loginsaid", (await answer.json()).detail);
  }
}

async function review(call) {
  const answer = await fetch(`boards/${encodeURIComponent(shown)}/review`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ call }),
  }).catch(() => null);
  if (answer && answer.ok) text("said", call === "false" ? "recorded as a false call" : "recorded as confirmed");
  else if (answer && answer.status === 401) askForKey();
  else text("said", answer ? (await answer.json()).detail : "the station does not answer: not recorded");
}

at("confirm").addEventListener("click", () => review("confirmed"));
at("wrong").addEventListener("click", () => review("false"));
at("follow").addEventListener("click", () => choose(null));
at("loginform").addEventListener("submit", logIn);
document.addEventListener("keydown", (event) => {
  if (!boards.length || at("login").open || !["ArrowLeft", "ArrowRight", "Escape"].includes(event.key)) return;
  const now = boards.findIndex((one) => one.event_id === shown);
  if (event.key === "Escape") choose(null);
  else choose(boards[Math.min(boards.length - 1, Math.max(0, now + (event.key === "ArrowRight" ? 1 : -1)))]);
});
setInterval(() => {
  if (performance.now() - heard > LOST_MS) lost("NO CONNECTION: what stands here is old");
}, 500);

heard = performance.now();
listen();
