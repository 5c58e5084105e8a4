// What is being drawn, and what waits: a card for each, with its progress, a preview and its own stop.

import { $, el, put, tool } from "./dom.js"
import { cancel, changed, jobs, left } from "./jobs.js"
import { shown, watch, words } from "./stage.js"
import { count } from "./words.js"

/** @type {Map<string, any>} */
const cards = new Map()

export function start() {
	changed.on(draw)
	left.on(id => {
		cards.get(id)?.node.remove()
		cards.delete(id)
		head()
	})
	shown.watch(id => {
		for (const [of, card] of cards) card.open.setAttribute("aria-current", String(of === id))
	})
}

/** @param {Job} job */
function draw(job) {
	if (!jobs.has(job.id)) return
	const card = cards.get(job.id) ?? make(job)
	card.node.dataset.phase = job.phase
	card.words.textContent = words(job)
	card.stop.disabled = job.ending
	if (job.progress === null || job.phase !== "running") card.bar.removeAttribute("value")
	else card.bar.value = job.progress
	card.bar.hidden = job.phase !== "running"
	if (job.preview) card.preview.style.backgroundImage = `url("${job.preview}")`
	if (shown.value === job.id) watch(job)
	head()
}

function make(/** @type {Job} */ job) {
	const { width = 2048, height = 512, prompt, seed } = job.input
	const card = {
		preview: el("div", { class: "preview", style: { aspectRatio: `${Math.max(width / height, 1.5)}` } }),
		words: el("p", { class: "state" }),
		bar: el("progress", { max: 1, "aria-label": `Progress: ${prompt}` }),
		stop: tool("stop", "Stop", () => cancel(job.id), { "aria-label": `Stop: ${prompt}` }),
		open: el("button", { type: "button", class: "open", on: { click: () => watch(job) } }, prompt || "(no prompt)"),
	}
	const node = el(
		"li",
		{ class: "job" },
		card.preview,
		el("div", { class: "job-words" }, card.open, card.words, card.bar),
		el("span", { class: "seed-of" }, seed === undefined ? "" : `seed ${seed}`),
		card.stop,
	)
	const made = { ...card, node }
	cards.set(job.id, made)
	$("jobs").append(node)
	return made
}

function head() {
	const running = [...jobs.values()].filter(job => job.phase === "running").length
	const waiting = jobs.size - running
	$("queue").hidden = jobs.size === 0
	put(
		$("queue-title"),
		[running > 0 && `${count(running, "picture")} being drawn`, waiting > 0 && `${waiting} waiting`]
			.filter(Boolean)
			.join(", "),
	)
}
