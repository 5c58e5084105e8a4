// The history: all pictures that the server keeps, newest first, whichever browser asked for them.

import { json, Refused, reached } from "./api.js"
import { pair } from "./compare.js"
import { $, calm, el, put, tool } from "./dom.js"
import { adopt, ended, jobs } from "./jobs.js"
import { thumbnail } from "./pictures.js"
import { takes } from "./schema.js"
import { again, clear, compare, erase, missing, show, shown, use } from "./stage.js"
import { toast } from "./toast.js"
import { ago, count } from "./words.js"

/** Predictions that are fetched at a time. */
const PAGE = 24
/** Milliseconds between two looks for what other browsers asked for. */
const PAUSE = 8000

/** @type {Map<string, { prediction: any, node: HTMLElement }>} */
const tiles = new Map()
/** Ids that are to be deleted unless somebody undoes it. @type {Set<string>} */
const leaving = new Set()
const two = pair(compare)
let status = ""
let text = ""
let searches = false
/** Where the next page begins; `null` at the end. @type {string | null | undefined} */
let cursor
let loading = false
let turn = 0

/** @type {(newest: any[]) => void} */
let first = () => {}

/** @param {Schema} schema @param {(newest: any[]) => void} begin what happens with the first page */
export function start(schema, begin) {
	searches = takes(schema, "predictions", "q")
	first = begin
	$("filter-status").addEventListener("change", () => ((status = $("filter-status").value), restart()))
	let timer = 0
	$("filter-text").addEventListener("input", () => {
		clearTimeout(timer)
		timer = setTimeout(() => ((text = $("filter-text").value.trim()), restart()), 250)
	})
	$("history").addEventListener("keydown", arrows)
	ended.on(prediction => add(prediction))
	missing.on(id => {
		if (tiles.has(id)) toast("That prediction is no longer on the server; it was deleted elsewhere.")
		remove(id)
	})
	shown.watch(id => {
		for (const [of, { node }] of tiles) node.querySelector(".open")?.setAttribute("aria-current", String(of === id))
	})
	new IntersectionObserver(seen => seen.some(one => one.isIntersecting) && more(), { rootMargin: "600px" }).observe(
		$("history-end"),
	)
	let was = true
	reached.watch(now => {
		if (now && !was) news()
		was = now
	})
	more().then(news)
	setInterval(() => document.hidden || news(), PAUSE)
}

/** @param {string | null} [from] */
function query(from, limit = PAGE) {
	const query = new URLSearchParams({ limit: String(limit) })
	if (status) query.set("status", status)
	if (text && searches) query.set("q", text)
	if (from) query.set("cursor", from)
	return `predictions?${query}`
}

function restart() {
	turn += 1
	tiles.clear()
	put($("history"))
	cursor = undefined
	loading = false
	more()
}

/** Fetches the next page. */
async function more() {
	if (loading || cursor === null) return
	loading = true
	const mine = turn
	$("history-end").textContent = "Loading …"
	try {
		const page = await json(query(cursor))
		if (mine !== turn) return
		const start = cursor === undefined
		// Of the URL only the place counts: a proxy may have added a prefix to it.
		cursor = page.next === null ? null : new URL(page.next, document.baseURI).searchParams.get("cursor")
		for (const prediction of page.results) place(prediction, false)
		$("history-end").textContent = ending()
		if (start && !status && !text) first(page.results)
	} catch (error) {
		if (mine === turn) {
			put(
				$("history-end"),
				`The history cannot be read: ${/** @type {Error} */ (error).message}. `,
				el("button", { type: "button", on: { click: () => more() } }, "Try again"),
			)
			setTimeout(() => mine === turn && reached.value && more(), 5000)
		}
		return
	} finally {
		if (mine === turn) loading = false
	}
	// A short page may leave its end in view, which the observer does not report again.
	if (cursor && $("history-end").getBoundingClientRect().top < innerHeight + 600) more()
}

function ending() {
	if (cursor !== null) return ""
	if (tiles.size > 0) return count(tiles.size, "picture")
	return status || text
		? "Nothing matches."
		: "Pictures that were drawn are here, also after a reload and in other browsers."
}

/** Looks for what is new: other browsers draw, too. */
async function news() {
	const before = [...tiles]
	const mine = turn
	try {
		const page = await json(query(null, 10))
		if (mine !== turn) return
		const ids = new Set(page.results.map(one => one.id))
		const oldest = page.next === null ? "" : (page.results.at(-1)?.created_at ?? "9")
		// What is missing among the newest was deleted elsewhere.
		for (const [id, { prediction }] of before) if (prediction.created_at > oldest && !ids.has(id)) remove(id)
		for (const prediction of [...page.results].reverse()) place(prediction, true)
	} catch {
		// The next look comes soon.
	}
}

/** Puts a prediction where it belongs: what has not ended goes to the queue. */
function place(prediction, front) {
	if (!prediction.completed_at) {
		if (!jobs.has(prediction.id)) adopt(prediction)
		return
	}
	if (!jobs.has(prediction.id)) add(prediction, front)
}

function matches(prediction) {
	return (
		(!status || prediction.status === status) &&
		(!text || String(prediction.input.prompt).toLowerCase().includes(text.toLowerCase()))
	)
}

function add(prediction, front = true) {
	if (tiles.has(prediction.id) || leaving.has(prediction.id)) return
	if (!matches(prediction)) return
	// A data URI is long, and the picture is fetched by its address anyway.
	const short = url => (url.startsWith("data:") ? "data:" : url)
	if (prediction.output) prediction.output = [prediction.output].flat().map(short)
	const node = tile(prediction)
	tiles.set(prediction.id, { prediction, node })
	if (front) $("history").prepend(node)
	else $("history").append(node)
	if (cursor === null) $("history-end").textContent = ending()
}

function remove(id) {
	tiles.get(id)?.node.remove()
	tiles.delete(id)
	if (cursor === null) $("history-end").textContent = ending()
}

/** Fetches a thumbnail when its tile comes into view. */
const near = new IntersectionObserver(
	seen => {
		for (const { target, isIntersecting } of seen) {
			if (!isIntersecting) continue
			near.unobserve(target)
			const image = /** @type {HTMLImageElement} */ (target)
			const id = /** @type {string} */ (image.dataset.id)
			const lost = () => image.closest(".tile")?.classList.add("lost")
			image.addEventListener("error", lost, { once: true })
			image.addEventListener("load", () => image.closest(".tile")?.classList.add("drawn"), { once: true })
			thumbnail(id).then(
				url => (image.src = url),
				error => {
					if (error instanceof Refused) lost()
					else near.observe(image)
				},
			)
		}
	},
	{ rootMargin: "300px" },
)

function tile(prediction) {
	const { id, input, status, error } = prediction
	const prompt = input.prompt || "(no prompt)"
	const image =
		status === "succeeded" ? el("img", { alt: "", data: { id }, width: input.width, height: input.height }) : null
	const reason = { failed: error, canceled: "stopped" }[/** @type {string} */ (status)]
	const words = status === "failed" ? `Failed: ${reason}` : (reason ?? "")
	const open = el(
		"button",
		{
			type: "button",
			class: "open",
			"aria-label": reason ? `${words} Open: ${prompt}` : `Open: ${prompt}`,
			"aria-current": String(shown.value === id),
			on: { click: () => (show(prediction), toStage()) },
		},
		image ?? el("span", { class: "reason" }, words),
	)
	const menu = [
		tool("redo", "Use all settings", () => use(input, "all"), { bare: true }),
		tool("text", "Use the prompt", () => use(input, "prompt"), { bare: true }),
		tool("seed", "Use the seed", () => use(input, "seed"), { bare: true }),
		image
			? tool("compare", "Compare with another", event => mark(prediction, event.currentTarget), {
					bare: true,
					"aria-pressed": "false",
				})
			: tool("spark", "Draw it again", () => again.emit(input), { bare: true }),
		tool("trash", "Delete", () => forget(prediction), { bare: true }),
	]
	const node = el(
		"li",
		{ class: `tile ${status}`, data: { id } },
		open,
		el("p", { class: "prompt", title: prompt }, prompt),
		el(
			"div",
			{ class: "tile-foot" },
			el("span", {}, prediction.completed_at ? ago(prediction.completed_at) : ""),
			el("span", { class: "tile-tools" }, ...menu),
		),
	)
	if (image) near.observe(image)
	return node
}

/** On a narrow page the picture is far from the history. */
function toStage() {
	const top = $("stage").getBoundingClientRect().top
	if (top < 0 || top > innerHeight / 2)
		$("stage").scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" })
}

/** Ends the question for a second picture. @type {() => void} */
let asked = () => {}

function mark(prediction, button) {
	two.toggle(prediction)
	for (const one of $("history").querySelectorAll("[aria-pressed]"))
		one.setAttribute("aria-pressed", String(two.has(one.closest(".tile").dataset.id)))
	asked()
	if (two.has(prediction.id))
		asked = toast("Choose a second picture to compare with.", {
			action: "Not now",
			act: () => mark(prediction, button),
		})
	else toStage()
}

/** Deletes a prediction, unless somebody undoes it within some seconds. */
function forget(prediction) {
	const { id } = prediction
	const known = tiles.get(id)
	if (!known) return
	const next = known.node.nextElementSibling ?? known.node.previousElementSibling
	const at = known.node.nextElementSibling
	leaving.add(id)
	remove(id)
	if (shown.value === id) clear()
	/** @type {HTMLElement | null | undefined} */
	const open = next?.querySelector(".open")
	open?.focus({ preventScroll: true })
	toast("Deleted.", {
		action: "Undo",
		act: () => {
			leaving.delete(id)
			tiles.set(id, known)
			$("history").insertBefore(known.node, at?.isConnected ? at : null)
			known.node.querySelector("button")?.focus()
		},
		done: () =>
			erase(id).then(
				() => leaving.delete(id),
				error => {
					leaving.delete(id)
					if (error instanceof Refused && error.status === 404) return
					add(prediction)
					toast(`It was not deleted: ${error.message}.`, { bad: true })
				},
			),
	})
}

/** Arrow keys go from tile to tile. */
function arrows(event) {
	const from = /** @type {HTMLElement} */ (event.target)
	if (!from.matches(".open")) return
	const all = /** @type {HTMLElement[]} */ ([...$("history").querySelectorAll(".open")])
	const at = all.indexOf(from)
	const top = all[0].getBoundingClientRect().top
	const across = Math.max(
		1,
		all.findIndex(one => one.getBoundingClientRect().top > top + 4),
	)
	const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key]
	if (event.key === "Delete") {
		event.preventDefault()
		const known = tiles.get(/** @type {any} */ (from.closest(".tile")).dataset.id)
		if (known) forget(known.prediction)
	} else if (by && all[at + by]) {
		event.preventDefault()
		all[at + by].focus()
	}
}

/** Shows the prediction before or after the one that is shown. @param {number} by */
export function neighbour(by) {
	const all = [...$("history").children].flatMap(node => tiles.get(node.dataset.id) ?? [])
	const at = all.findIndex(({ prediction }) => prediction.id === shown.value)
	const next = at >= 0 || by > 0 ? all[at + by] : undefined
	if (next) show(next.prediction)
}
