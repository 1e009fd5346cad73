// SPDX-License-Identifier: Apache-2.0
"use strict";
/*
 * The dashboard: asks /api/status and /api/runs again and again and shows what they say. Nothing is computed that they do not have, but
 * for sums over daemons. Elements carry the exact value in data-value.
 */

// Okabe and Ito's colours, distinct also with colour blindness; lines differ in dashes too, points in shape.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"];
const DASHES = [[], [8, 3], [2, 3], [10, 3, 2, 3], [5, 5]];
const SHAPES = ["circle", "rect", "triangle", "rectRot"];
const LEAD_POINTS = 600;
const RUNS_EVERY_S = 2;

const hidden = new Set();		// runs that the user switched off, by folder
const looks = new Map();		// folder -> number: a run keeps its colour
const charts = {};
const lead = [];
let runs = [], runDir = null;

const $ = (id) => document.getElementById(id);

// ---- numbers ----

function known(v) {
	return typeof v === "number" && Number.isFinite(v);
}

function count(v) {
	if (!known(v))
		return "-";
	const units = ["", " k", " M", " G", " T", " P", " E"];
	let i = 0;
	for (; Math.abs(v) >= 999.5 && i < units.length - 1; i++)
		v /= 1000;
	return (Number.isInteger(v) ? String(v) : v.toPrecision(3)) + units[i];
}

function whole(v) {
	return known(v) ? String(v) : "-";
}

function digits(n) {
	return (v) => known(v) ? v.toFixed(n) : "-";
}

function span(v) {
	if (!known(v))
		return "-";
	if (v < 60)
		return v.toFixed(1) + " s";
	const s = Math.round(v), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
	return (h > 0 ? h + ":" + String(m).padStart(2, "0") : m) + ":" + String(s % 60).padStart(2, "0");
}

function bytes(v) {
	return known(v) ? count(v).replace(/^[^ ]+$/, "$& ") + "B" : "-";
}

function rate(v) {
	return known(v) ? (v === 0 ? "0" : v.toExponential(2)) : "-";
}

// ---- tables and tiles: rows are filled in place, so that the focus and the place in a table stay ----

function setText(node, text, value) {
	if (node.textContent !== text)
		node.textContent = text;
	if (value !== undefined)
		node.dataset.value = value === null ? "" : String(value);
}

// columns: [title, of(row), show or null for text]
function fill(table, columns, rows, key, empty, isSilent) {
	if (table.tHead === null) {
		const tr = table.createTHead().insertRow();
		for (const [title, , show] of columns) {
			const th = document.createElement("th");
			th.scope = "col";
			th.textContent = title;
			th.className = show ? "number" : "";
			tr.append(th);
		}
		table.createTBody();
	}
	const body = table.tBodies[0];
	const wanted = Math.max(rows.length, 1);
	while (body.rows.length > wanted)
		body.deleteRow(-1);
	while (body.rows.length < wanted)
		body.insertRow();
	if (rows.length === 0) {
		const tr = body.rows[0];
		tr.replaceChildren();
		tr.className = "";
		delete tr.dataset.key;
		const td = tr.insertCell();
		td.colSpan = columns.length;
		td.textContent = empty;
		return;
	}
	rows.forEach((row, i) => {
		const tr = body.rows[i];
		if (tr.cells.length !== columns.length) {
			tr.replaceChildren();
			columns.forEach(() => tr.insertCell());
		}
		tr.dataset.key = key(row);
		tr.className = isSilent && isSilent(row) ? "silent" : "";
		columns.forEach(([title, of, show], c) => {
			const v = of(row), td = tr.cells[c];
			td.className = show ? "number" : (typeof v === "string" && v.length > 40 ? "long" : "");
			td.dataset.column = title;
			setText(td, show ? show(v) : (v || "-"), v === undefined ? null : v);
		});
	});
}

function tiles(list) {
	const dl = $("tiles");
	list.forEach(([id, title, text, value], i) => {
		let div = dl.children[i];
		if (!div) {
			div = document.createElement("div");
			div.append(document.createElement("dt"), document.createElement("dd"));
			dl.append(div);
		}
		setText(div.firstChild, title);
		div.lastChild.id = "tile-" + id;
		setText(div.lastChild, text, value);
	});
}

// ---- charts ----

const switches = {
	id: "switches",
	afterDatasetsDraw(chart) {
		const {ctx, chartArea: area, scales: {x}} = chart;
		for (const s of chart.data.switches || []) {
			const at = x.getPixelForValue(s.step);
			if (at < area.left || at > area.right)
				continue;
			ctx.save();
			ctx.strokeStyle = s.colour;
			ctx.setLineDash([4, 4]);
			ctx.beginPath();
			ctx.moveTo(at, area.top);
			ctx.lineTo(at, area.bottom);
			ctx.stroke();
			ctx.restore();
		}
	},
};

function chart(id, xTitle, tick, fromZero) {
	if (!charts[id])
		charts[id] = new Chart($(id), {
			type: "line",
			data: {datasets: [], switches: []},
			plugins: [switches],
			options: {
				animation: false, parsing: false, normalized: true, responsive: true, maintainAspectRatio: false,
				interaction: {mode: "nearest", axis: "x", intersect: false},
				plugins: {legend: {display: false}},
				scales: {
					x: {type: "linear", title: {display: true, text: xTitle}, ticks: {maxRotation: 0, precision: 0}, suggestedMin: 0},
					y: {ticks: tick ? {callback: tick} : {}, beginAtZero: Boolean(fromZero)},
				},
				elements: {line: {borderWidth: 2}, point: {radius: 0, hitRadius: 6}},
			},
		});
	return charts[id];
}

function show(c, datasets, marks) {
	datasets.forEach((d, i) => c.data.datasets[i] ? Object.assign(c.data.datasets[i], d) : c.data.datasets.push(d));
	c.data.datasets.length = datasets.length;
	c.data.switches = marks;
	c.update("none");
}

// A value that is null is a gap.
function points(xs, ys) {
	return xs.map((x, i) => ({x, y: ys[i] === null ? NaN : ys[i]}));
}

function look(run) {
	if (!looks.has(run.dir))
		looks.set(run.dir, looks.size);
	return looks.get(run.dir);
}

function draw() {
	if (typeof Chart === "undefined")
		return;
	const good = runs.filter((r) => r.points && !hidden.has(r.dir));
	const colour = (r) => COLOURS[look(r) % COLOURS.length];
	const marks = good.filter((r) => r.switch_step !== null).map((r) => ({step: r.switch_step, colour: colour(r)}));
	const lines = (column) => good.map((r) => ({
		label: r.name, data: points(r.points.step, r.points[column]), borderColor: colour(r), backgroundColor: colour(r),
		borderDash: DASHES[look(r) % DASHES.length], spanGaps: false,
		pointRadius: r.points.step.length === 1 ? 3 : 0,
	}));
	const heldout = good.map((r) => ({
		label: r.name + ", held-out", data: points(r.evals.step, r.evals.loss), borderColor: colour(r), backgroundColor: colour(r),
		showLine: false, pointRadius: 3.5, pointStyle: SHAPES[look(r) % SHAPES.length],
	}));

	show(chart("loss", "step"), lines("hard").concat(heldout), marks);
	show(chart("lr", "step", (v) => v === 0 ? "0" : v.toExponential(1)), lines("lr"), marks);
	show(chart("rate", "step", count, true), lines("tokens_per_s"), marks);
	show(chart("ahead", "step", null, true), lines("rows_ahead"), marks);
	show(chart("lead", "seconds since this page was opened", count, true), [{
		label: "rows", data: lead.slice(), borderColor: COLOURS[0], backgroundColor: COLOURS[0], stepped: true,
		pointRadius: lead.length === 1 ? 3 : 0,
	}], []);
}

// Bars of both kinds stand side by side, so that colour alone carries no information.
function drawScores(selectors) {
	const all = [], kept = [];
	let width = 0;
	for (const p of selectors.flatMap((d) => d.plans || []).filter((p) => p.scores)) {
		width = p.scores.bin_nats;
		p.scores.sequences.forEach((n, i) => {
			all[i] = (all[i] || 0) + n;
			kept[i] = (kept[i] || 0) + p.scores.kept[i];
		});
	}
	$("scores-part").hidden = all.length === 0;
	$("scores").dataset.value = JSON.stringify({sequences: all, kept});
	if (typeof Chart === "undefined" || all.length === 0)
		return;
	if (!charts.scores)
		charts.scores = new Chart($("scores"), {
			type: "bar",
			data: {labels: [], datasets: []},
			options: {
				animation: false, responsive: true, maintainAspectRatio: false,
				plugins: {legend: {display: true}},
				scales: {
					x: {title: {display: true, text: "S, nats, from"}, ticks: {maxRotation: 0}},
					y: {beginAtZero: true, ticks: {precision: 0, callback: count}},
				},
			},
		});
	const bars = (label, data, n) => ({label, data, backgroundColor: COLOURS[n], borderColor: COLOURS[n]});
	charts.scores.data.labels = all.map((_, i) => String(i * width));
	show(charts.scores, [bars("scored", all, 6), bars("kept", kept, 1)], []);
}

function swatch(n) {
	const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg"), line = document.createElementNS(ns, "line");
	svg.setAttribute("width", 30);
	svg.setAttribute("height", 10);
	svg.setAttribute("aria-hidden", "true");
	for (const [k, v] of [["x1", 0], ["x2", 30], ["y1", 5], ["y2", 5], ["stroke", COLOURS[n % COLOURS.length]], ["stroke-width", 3],
		["stroke-dasharray", DASHES[n % DASHES.length].join(" ")]])
		line.setAttribute(k, v);
	svg.append(line);
	return svg;
}

function legend() {
	const box = $("legend"), have = new Map([...box.children].map((b) => [b.dataset.dir, b]));
	for (const run of runs.filter((r) => r.points)) {
		if (have.delete(run.dir))
			continue;
		const b = document.createElement("button");
		b.type = "button";
		b.dataset.dir = run.dir;
		b.setAttribute("aria-pressed", "true");
		b.append(swatch(look(run)), run.name);
		b.addEventListener("click", () => {
			if (!hidden.delete(run.dir))
				hidden.add(run.dir);
			b.setAttribute("aria-pressed", String(!hidden.has(run.dir)));
			draw();
		});
		box.append(b);
	}
	for (const b of have.values())
		b.remove();
}

// ---- content of the answers ----

const get = (path, of = (v) => v) => (d) => {
	let v = d;
	for (const k of path.split("."))
		v = v === undefined || v === null ? undefined : v[k];
	return v === undefined || v === null ? v : of(v);
};

const STATE = ["state", (d) => d.answered ? d.state : "NO ANSWER: " + d.why, null];
const ERROR = ["last error", get("last_error"), null];

const TEACHER_COLUMNS = [
	["name", (d) => d.name || d.endpoint, null], ["host", get("host"), null], STATE,
	["tokens/s", get("rates.tokens_per_s"), count], ["sequences", get("counters.sequences_total"), whole],
	["leases", get("queues.leases_in_hand"), whole], ["processor", get("gauges.cpu_seconds"), span], ["up", get("uptime_s"), span], ERROR,
];
const DAEMON_COLUMNS = [
	["name", (d) => d.name || d.endpoint, null], ["host", get("host"), null], STATE, ["phase", get("phase"), null],
	["step", get("step"), whole], ["of", get("steps_total"), whole],
	["tokens/s", get("rates.tokens_per_s"), count], ["labels/s", get("rates.labels_per_s"), count],
	["rows ahead", get("queues.rows_ahead"), whole], ["up", get("uptime_s"), span], ERROR,
];
const RESULT_COLUMNS = [
	["run", get("name"), null], ["mode", get("mode"), null], ["step", get("step"), whole], ["of", get("steps_total"), whole],
	["switch", get("switch_step"), whole], ["last training loss", (r) => r.points.hard[r.points.hard.length - 1], digits(4)],
	["held-out loss", get("heldout_loss"), digits(4)], ["accuracy", get("accuracy", (v) => 100 * v), (v) => known(v) ? v.toFixed(2) + " %" : "-"],
	["parameters", get("parameters"), count], ["seed", get("seed"), whole],
];
const LEDGER_COLUMNS = [
	["run", get("name"), null], ["tokens", get("ledger.tokens"), count], ["FLOPs", get("ledger.flops"), count],
	["trained", get("ledger.train_seconds"), span], ["FLOP/s", get("ledger.flops_per_second"), count],
	["waited for rows", get("ledger.wait_seconds"), span], ["label bytes", get("ledger.label_bytes"), bytes],
	["teacher FLOPs", get("ledger.teacher_flops"), count], ["teacher processor time", get("ledger.teacher_cpu_seconds"), span],
];

function sum(list, of) {
	const values = list.map(of).filter(known);
	return values.length > 0 ? values.reduce((a, b) => a + b, 0) : null;
}

function phaseText(trainer, selectors) {
	const live = runs.find((r) => r.dir === runDir), at = live ? live.switch_step : null;
	const plans = selectors.flatMap((d) => d.plans || []);
	let text = trainer === undefined ? "No trainer answers." :
		trainer.phase === "one" ? "Phase one: the trainer learns from text and teacher." :
		at !== null && at !== undefined ? "Phase two since step " + at + ": the trainer needs no other process." :
		trainer.phase === "two" ? "The trainer learns from text alone." : "";
	for (const p of plans)
		text += " Plan " + p.plan.slice(0, 8) + ": " + p.rows_ready + " of " + p.rows + " rows ready, " + p.rows_asked + " asked for" +
			(p.released ? ", released." : ".");
	return text;
}

function showStatus(status) {
	const daemons = status.daemons, up = daemons.filter((d) => d.answered);
	const of = (role) => up.filter((d) => d.role === role);
	const trainers = of("trainerd"), selectors = of("selectord"), teachers = of("teacherd"), t = trainers[0];
	const ahead = sum(selectors, get("queues.rows_ahead"));
	const value = (path) => t === undefined ? null : get(path)(t);

	setText($("now"), up.length + " of " + daemons.length + " daemons answer. " + new Date(status.polled_at * 1000).toLocaleTimeString(),
		status.polled_at);
	tiles([
		["state", "trainer", t ? t.state : "-", t ? t.state : null],
		["phase", "phase", t && t.phase ? t.phase : "-", t ? t.phase : null],
		["step", "step", t ? t.step + " of " + t.steps_total : "-", value("step")],
		["loss", "mixed loss, nats", digits(4)(value("gauges.loss")), value("gauges.loss")],
		["lr", "learning rate", rate(value("gauges.learning_rate")), value("gauges.learning_rate")],
		["tokens", "tokens/s, trainer", count(value("rates.tokens_per_s")), value("rates.tokens_per_s")],
		["label-tokens", "tokens/s, teachers", count(sum(teachers, get("rates.tokens_per_s"))), sum(teachers, get("rates.tokens_per_s"))],
		["ahead", "rows ahead", whole(ahead), ahead],
		["teachers", "teachers", String(teachers.length), teachers.length],
	]);
	setText($("phase"), phaseText(t, selectors));
	drawScores(selectors);
	const silent = (d) => !d.answered, name = (d) => d.name || d.endpoint;
	fill($("teachers"), TEACHER_COLUMNS, daemons.filter((d) => d.role === "teacherd"), name, "No teacher is connected.", silent);
	fill($("daemons"), DAEMON_COLUMNS, daemons.filter((d) => d.role !== "teacherd").reverse(), name, "No trainer or selector is connected.", silent);
	if (known(ahead)) {
		lead.push({x: Math.round(performance.now() / 100) / 10, y: ahead});
		if (lead.length > LEAD_POINTS)
			lead.shift();
	}
}

function showRuns(answer) {
	runs = answer.runs;
	runDir = answer.run_dir;
	const good = runs.filter((r) => r.points), bad = runs.filter((r) => r.error), each = Math.max(1, ...good.map((r) => r.steps_per_point));

	legend();
	fill($("results"), RESULT_COLUMNS, good, (r) => r.name, "No run has written anything here.");
	fill($("ledger"), LEDGER_COLUMNS, good, (r) => r.name, "No run has written anything here.");
	setText($("grouped"), each > 1 ? "Long runs: one value is the mean of up to " + each + " steps." : "");
	setText($("broken"), bad.map((r) => r.name + " cannot be read: " + r.error).concat(
		answer.left_off > 0 ? [answer.left_off + " older runs are not shown."] : []).join(" "));
}

// ---- polling ----

const problems = new Map();		// source -> text
const shown = new Set();

function problem(what, text) {
	if (text)
		problems.set(what, text);
	else
		problems.delete(what);
	const all = [...problems.values()].join(" ");
	setText($("problem"), all);
	$("problem").hidden = all === "";
}

async function ask(path, use) {
	const answer = await fetch(path, {cache: "no-store", signal: AbortSignal.timeout(10000)});
	if (answer.ok)
		use(await answer.json());
	else if (answer.status !== 503)		// 503: it has just started
		throw new Error("status " + answer.status);
}

async function every(what, seconds, path, use) {
	let wait = seconds;
	if (!document.hidden) {
		try {
			await ask(path, (answer) => {
				use(answer);
				draw();
				wait = Math.max(seconds, answer.every_s || 0);
			});
			problem(what, "");
			shown.add(what);
			if (shown.size === 2 && performance.getEntriesByName("shown").length === 0)
				performance.mark("shown");		// how long it took to open
		} catch (e) {
			problem(what, "The exporter did not answer (" + path + ": " + e.message + "). The figures below are old.");
		}
	}
	setTimeout(every, 1000 * wait, what, seconds, path, use);
}

if (typeof Chart === "undefined")
	problem("charts", "No charts: the exporter's host has no Chart.js. There: apt-get install libjs-chart.js, then reload this page.");
every("status", 1, "api/status", showStatus);
every("runs", RUNS_EVERY_S, "api/runs", showRuns);
