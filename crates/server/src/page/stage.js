// The picture that is looked at: one that is drawn now, or one of the history, with what can be done with it.

import { ask, json, path, Refused, reached } from "./api.js"
import { Compare } from "./compare.js"
import { $, el, put, tool } from "./dom.js"
import { fill } from "./form.js"
import { cancel, jobs } from "./jobs.js"
import { source } from "./pictures.js"
import { saving, sharing } from "./save.js"
import { Event, signal } from "./signal.js"
import { toast } from "./toast.js"
import { Viewer } from "./viewer.js"
import { duration, left, place, plain } from "./words.js"

/** The id of what is shown; empty if nothing is. @type {Signal<string>} */
export const shown = signal("")
/** A picture is to be drawn again. @type {Event<any>} */
export const again = new Event()
/** A prediction turned out to be gone. @type {Event<string>} */
export const missing = new Event()

/** @type {Viewer} */
let viewer
/** @type {any} */
let prediction = null
/** @type {boolean} */
let links = false

/** @param {boolean} canLink whether the server has pages for one picture */
export function start(canLink) {
	links = canLink
	viewer = new Viewer($("viewer"))
}

const loops = input => input.loop_closure === true || input.seamless === true

/** The pictures of a prediction: one, or several. */
const outputs = known => (Array.isArray(known.output) ? known.output.length : 1)

/** Shows a prediction that has ended. @param {any} known @param {number} [index] which of its pictures */
export async function show(known, index = 0) {
	prediction = known
	Compare.close()
	choose(known.id)
	$("stage").dataset.state = known.status
	$("stage-bar").hidden = true
	put($("stage-tools"))
	facts(known)
	if (known.status !== "succeeded") {
		viewer.clear()
		const reason = known.status === "canceled" ? "It was stopped before it was done." : `It failed: ${known.error}.`
		put($("stage-say"), el("p", { class: "reason" }, reason))
		put(
			$("stage-tools"),
			tool("redo", "Draw it again", () => again.emit(known.input), { class: "tool main" }),
			...settings(known.input),
		)
		return
	}
	const many = outputs(known)
	put(
		$("stage-say"),
		many > 1 &&
			el(
				"div",
				{ class: "pages", role: "group", "aria-label": "Pictures of this prediction" },
				...Array.from({ length: many }, (_, at) =>
					el(
						"button",
						{ type: "button", "aria-pressed": String(at === index), on: { click: () => show(known, at) } },
						String(at + 1),
					),
				),
			),
	)
	let url
	try {
		url = await source(known.id, undefined, index)
	} catch (error) {
		if (shown.value !== known.id) return
		viewer.clear()
		const gone = error instanceof Refused && error.status === 404
		put(
			$("stage-say"),
			el(
				"p",
				{ class: "reason" },
				gone
					? "The picture is no longer on the server. It was deleted elsewhere, or is no longer kept."
					: `The picture cannot be fetched: ${/** @type {Error} */ (error).message}.`,
			),
		)
		put(
			$("stage-tools"),
			tool("redo", "Draw it again", () => again.emit(known.input)),
			...settings(known.input),
		)
		if (gone) missing.emit(known.id)
		return
	}
	if (shown.value !== known.id || prediction !== known) return
	viewer.show({
		url,
		width: known.input.width,
		height: known.input.height,
		loop: loops(known.input),
		label: known.input.prompt || "A picture without a prompt",
	})
	put(
		$("stage-tools"),
		...settings(known.input),
		saving(known, url, `image/${known.input.output_format ?? "png"}`),
		...sharing(known, url, index, links),
	)
}

/** What can be used again. */
const settings = input => [
	tool("redo", "Use all settings", () => use(input, "all")),
	tool("text", "Prompt", () => use(input, "prompt"), { "aria-label": "Use the prompt" }),
	tool("seed", "Seed", () => use(input, "seed"), { "aria-label": "Use the seed" }),
]

/** @param {any} input @param {"all" | "prompt" | "seed"} what */
export function use(input, what) {
	const missing = fill(input, what)
	$("prompt").scrollIntoView({ block: "nearest" })
	toast(
		{
			all: missing ? `The settings are in the form.${missing}` : "All settings are in the form.",
			prompt: "The prompt is in the form.",
			seed: `The seed ${input.seed} is in the form, locked.`,
		}[what],
	)
}

/** Shows a prediction that is being drawn. @param {Job} job */
export function watch(job) {
	prediction = null
	if (shown.value !== job.id) {
		Compare.close()
		choose(job.id)
		viewer.clear()
		put($("stage-tools"))
	}
	const { width = 2048, height = 512, prompt = "" } = job.input
	$("stage").dataset.state = job.phase
	if (job.preview)
		viewer.show({
			url: job.preview,
			width,
			height,
			loop: loops(job.input),
			label: `How far it is: ${prompt}`,
			soft: true,
		})
	facts({ input: job.input })
	const bar = $("stage-bar")
	bar.hidden = false
	if (job.progress === null) bar.removeAttribute("value")
	else bar.value = job.progress
	say(words(job))
	if (!$("stage-tools").firstChild)
		put(
			$("stage-tools"),
			tool("stop", "Stop", () => cancel(job.id), { class: "tool stop" }),
			...settings(job.input),
		)
	$("stage-tools").querySelector(".stop").disabled = job.ending
}

/** The state of a job in words. @param {Job} job */
export function words(job) {
	if (job.ending) return "Stopping …"
	if (job.note) return job.note
	if (!reached.value) return "The server cannot be reached; this goes on there, or when it is back."
	if (job.phase === "sending") return "Sending …"
	if (job.phase === "waiting")
		return [place(job.position), left(job.left)]
			.filter(Boolean)
			.join(", ")
			.replace(/^./, first => first.toUpperCase())
	return [job.steps ? `Step ${job.step} of ${job.steps}` : "Working", left(job.left)].filter(Boolean).join(", ")
}

let said = 0

/** Says how far it is; a screen reader hears it every few seconds only. */
function say(text) {
	const place = $("stage-say")
	const seen = place.querySelector(".state") ?? el("p", { class: "state" })
	if (!seen.isConnected) put(place, seen)
	seen.textContent = text
	if (Date.now() - said > 5000) {
		said = Date.now()
		$("spoken").textContent = text
	}
}

/** What the picture was made from. */
function facts(known) {
	const { input, metrics = {} } = known
	const some = [
		input.width && `${input.width} × ${input.height}`,
		input.seed !== undefined && `seed ${input.seed}`,
		input.num_inference_steps &&
			`${input.num_inference_steps} steps${input.scheduler && input.scheduler !== "ddim" ? `, ${input.scheduler}` : ""}`,
		loops(input) && "loop",
		metrics.predict_time && `drawn in ${duration(metrics.predict_time)}`,
	].filter(Boolean)
	const rest = Object.entries(input).filter(([name]) => !["prompt", "width", "height", "seed"].includes(name))
	put(
		$("stage-facts"),
		el("p", { class: "prompt" }, input.prompt || "(no prompt)"),
		el("p", { class: "some" }, some.join(" · ")),
		el(
			"details",
			{},
			el("summary", {}, "All settings", known.logs ? " and the log" : ""),
			el("dl", {}, ...rest.flatMap(([name, value]) => [el("dt", {}, plain(name)), el("dd", {}, brief(value))])),
			known.logs && el("pre", { class: "logs", tabIndex: 0, role: "group", "aria-label": "Log" }, known.logs),
		),
	)
}

const brief = value => {
	const text = typeof value === "string" ? value : JSON.stringify(value)
	return text.length > 200 ? `${text.slice(0, 80)} … (${text.length} characters)` : text || "(empty)"
}

/** Remembers in the address what is shown, so that a reload shows it again. @param {string} id */
function choose(id) {
	if (shown.value === id) return
	history.replaceState(null, "", id ? `#${encodeURIComponent(id)}` : location.pathname + location.search)
	shown.value = id
}

/** Shows nothing. */
export function clear() {
	prediction = null
	choose("")
	viewer.clear()
	Compare.close()
	$("stage").dataset.state = ""
	$("stage-bar").hidden = true
	for (const id of ["stage-say", "stage-tools", "stage-facts"]) put($(id))
}

/** Shows the prediction of an id, whatever became of it. @param {string} id */
export async function open(id) {
	const job = jobs.get(id)
	if (job) return watch(job)
	try {
		return await json(path(id))
	} catch (error) {
		if (error instanceof Refused && error.status === 404) missing.emit(id)
		return null
	}
}

/** Deletes a prediction. @param {string} id */
export const erase = id => ask(path(id), { method: "DELETE", keepalive: true })

/** Looks at two pictures, one over the other. @param {any} one @param {any} other */
export async function compare(one, other) {
	try {
		const urls = await Promise.all([source(one.id), source(other.id)])
		Compare.open($("viewer"), [one, other], urls)
	} catch (error) {
		toast(`The pictures cannot be fetched: ${/** @type {Error} */ (error).message}.`, { bad: true })
	}
}

// What could not be fetched while the server was away is fetched when it is back.
reached.watch(back => {
	if (back && prediction?.status === "succeeded" && !$("viewer").classList.contains("filled")) show(prediction)
})
