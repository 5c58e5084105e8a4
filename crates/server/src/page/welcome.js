// The first visit: an example on one click, and what the model does while it draws.

import { $, calm, el, put, svg, tool } from "./dom.js"
import { changed, ended, jobs, left } from "./jobs.js"
import { Event } from "./signal.js"
import { shown } from "./stage.js"

/** The example is to be drawn. @type {Event<any>} */
export const example = new Event()

export const EXAMPLE = { prompt: "a photo of a mountain range at twilight", preset: "fast" }

/** What happens, and from which share of the work on. @type {[number, string, string][]} */
const STEPS = [
	[
		-1,
		"Noise",
		"The canvas is filled with random numbers, made from the seed. They are latents: 64 of them across become 512 pixels.",
	],
	[
		0,
		"Windows",
		"The model draws squares of one size only. So the panorama is a row of windows that overlap, and each is denoised by itself.",
	],
	[
		0.04,
		"Synchronisation",
		"Windows on their own would draw different mountains. In the first steps each is moved towards the predicted picture of the anchor, the window in the middle.",
	],
	[
		0.2,
		"Denoising",
		"Step by step noise is removed. Where windows overlap they are averaged, so they grow into one panorama.",
	],
	[0.94, "Decoding", "At last the decoder turns latents into pixels, eight by eight for each."],
]

export function start() {
	changed.on(job => {
		if (!$("welcome").hidden && jobs.size > 0) hide()
		if (shown.value === job.id) explain(job)
	})
	left.on(id => id === told && put($("explain")))
	shown.watch(id => {
		const job = jobs.get(id)
		if (!job) put($("explain"))
		else explain(job)
	})
	ended.on(hide)
}

export function hide() {
	$("welcome").hidden = true
}

/** Offers the example. */
export function show() {
	if (jobs.size > 0 || shown.value) return
	put(
		$("welcome"),
		horizon(),
		el("h2", {}, "Describe a place, and get a panorama of it"),
		el(
			"p",
			{},
			"Type what you want to see and press Draw. Or see how it works with an example, which takes a fraction of the usual time.",
		),
		tool("spark", "Draw an example", () => example.emit(EXAMPLE), { class: "tool main", id: "example" }),
		el("p", { class: "about" }, "You can also drop a picture that was made here: its settings come back."),
	)
	$("welcome").hidden = false
}

/** Three ranges of mountains. */
function horizon() {
	const ranges = [
		"M0 70 L60 40 L110 64 L170 28 L230 60 L300 34 L360 62 L430 24 L500 58 L560 36 L640 66 V110 H0z",
		"M0 84 L80 60 L150 82 L220 54 L310 84 L390 58 L470 82 L550 60 L640 84 V110 H0z",
		"M0 98 L100 80 L200 96 L320 76 L420 96 L520 80 L640 96 V110 H0z",
	]
	return svg(
		"svg",
		{ viewBox: "0 0 640 110", class: "horizon", "aria-hidden": "true", preserveAspectRatio: "xMidYMax slice" },
		svg("circle", { cx: 470, cy: 34, r: 13 }),
		...ranges.map((d, at) => svg("path", { d, class: `range-${at}` })),
	)
}

let told = ""
/** Whether the reader asked for the explanation, or closed it. @type {boolean | null} */
let open = null

/** Says what happens now. @param {Job} job */
function explain(job) {
	const place = $("explain")
	const at = job.phase === "running" ? STEPS.findLastIndex(([from]) => (job.progress ?? 0) >= from) : 0
	if (told === job.id && place.firstChild && place.dataset.at === String(at)) return
	const is = open ?? job.example
	const fresh = told !== job.id || !place.firstChild
	told = job.id
	place.dataset.at = String(at)
	if (fresh)
		put(
			place,
			el(
				"details",
				{ open: is, on: { toggle: event => (open = event.currentTarget.open) } },
				el("summary", {}, "What is happening?"),
				el(
					"ol",
					{ class: "steps" },
					...STEPS.map(([, name, words], step) => el("li", {}, drawing(step), el("b", {}, name), el("p", {}, words))),
				),
			),
		)
	for (const [step, node] of [...place.querySelectorAll("li")].entries()) {
		node.toggleAttribute("aria-current", step === at)
		if (step === at) node.setAttribute("aria-current", "step")
		node.classList.toggle("past", step < at)
	}
	const now = place.querySelector("[aria-current]")
	const list = now?.parentElement
	if (now && list) list.scrollTo({ left: now.offsetLeft - list.offsetLeft - 8, behavior: calm() ? "auto" : "smooth" })
}

/** A small picture of a step. */
function drawing(step) {
	const node = svg("svg", { viewBox: "0 0 120 40", class: "diagram", "aria-hidden": "true" })
	const rect = (x, y, width, height, kind, opacity = 1) =>
		node.append(svg("rect", { x, y, width, height, class: kind, opacity, rx: 1 }))
	let state = 7
	const random = () => (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648
	const dots = share => {
		for (let x = 4; x < 116; x += 4)
			for (let y = 8; y < 32; y += 4) if (random() < share) rect(x, y, 4, 4, "anchor", 0.15 + 0.85 * random())
	}
	const hills = () =>
		node.append(svg("path", { d: "M4 32V24l18-10 14 9 18-14 18 14 16-8 14 9 14-6v14z", class: "hills" }))
	if (step === 0) dots(1)
	if (step === 1)
		for (let at = 0; at < 7; at += 1) rect(4 + at * 14, 8 + (at % 2) * 3, 24, 24, at === 3 ? "anchor" : "window")
	if (step === 2) {
		for (const x of [4, 26, 70, 92]) rect(x, 8, 24, 24, "window")
		rect(48, 6, 24, 28, "anchor")
		node.append(svg("path", { d: "M12 20H42m-5-4l5 4l-5 4M108 20H78m5-4l-5 4l5 4", class: "pull", "stroke-width": 2 }))
	}
	if (step === 3) {
		hills()
		dots(0.3)
	}
	if (step === 4) {
		hills()
		node.append(svg("circle", { cx: 92, cy: 13, r: 4, class: "anchor" }))
	}
	return node
}
