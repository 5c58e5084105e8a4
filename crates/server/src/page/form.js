// The form: one box first, then shapes, speed and seed, and the other inputs in folded groups. All of it is made from
// the schema, so an input that a server lacks is missing here, and a new one appears by itself.

import { chips, control, literal } from "./controls.js"
import { diagram } from "./diagram.js"
import { $, el, icon, put, tool } from "./dom.js"
import { withoutHashes } from "./metadata.js"
import { placement } from "./placement.js"
import { APART, groups, isPicture } from "./schema.js"
import { Event } from "./signal.js"

/** Seeds that are made up here: short enough to be told to others. */
const SEEDS = 1_000_000
/** Pictures of one click at most. */
const MAX_COUNT = 4
const DRAFT = `draft ${new URL(".", document.baseURI).pathname}`

/** What is typed changed. @type {Event<void>} */
export const typed = new Event()

/** @type {Map<string, Control>} */
const controls = new Map()
/** @type {Map<string, Field>} */
const fields = new Map()
/** Parts of the form that are made when the schema is known. @type {Record<string, any>} */
const parts = {}

/** Makes the form. @param {Schema} schema */
export function build(schema) {
	for (const field of schema.fields) fields.set(field.name, field)
	const changed = () => {
		mark()
		save()
		drawings()
		typed.emit()
	}
	const prompt = $("prompt")
	prompt.addEventListener("input", changed)
	put($("form-shapes"), size(changed))
	put($("form-speed"), fields.get("preset") && speed(changed))
	put($("form-seed"), fields.get("seed") && seeds(changed))
	put($("form-groups"))
	for (const group of groups(schema.fields)) {
		const inside = group.fields.map(field => {
			const made = control(field, changed)
			controls.set(field.name, made)
			return made.node
		})
		if (group.title === "Synchronisation") {
			parts.sync = diagram(number, fields.get("height")?.minimum ?? 512)
			inside.unshift(parts.sync.node)
		}
		if (group.fields.some(({ name }) => name === "image" || name === "prompts") && !parts.placement) {
			parts.placement = placement(name => controls.get(name), number, changed)
			inside.unshift(parts.placement.node)
		}
		$("form-groups").append(
			el(
				"details",
				{ class: "group", data: { group: group.title } },
				el("summary", {}, el("span", {}, group.title), el("small", {}, group.about)),
				el("div", { class: "fields" }, ...inside),
			),
		)
	}
	parts.counts = chips(
		"How many",
		[1, 2, 3, 4].slice(0, MAX_COUNT).map(count => ({ value: String(count), label: String(count) })),
		changed,
	)
	parts.counts.choose("1")
	put($("form-count"), parts.counts.node)
	restore()
	mark()
	drawings()
}

/** Draws what shows the values. */
function drawings() {
	parts.sync?.draw()
	parts.placement?.draw()
}

/** The value that an input has now, as a number; its default if it is left out. @param {string} name */
function number(name) {
	const text = controls.get(name)?.read()
	return Number(text || fields.get(name)?.default)
}

/** The chips of shapes, in the sizes of this model. */
function size(changed) {
	const [width, height] = [fields.get("width"), fields.get("height")]
	if (!width || !height) return null
	const unit = height.default
	const all = /** @type {[string, number, number][]} */ ([
		["2:1", 2, 1],
		["4:1", 4, 1],
		["6:1", 6, 1],
		["Tall", 1, 2],
		["Square", 2, 2],
	])
	const fits = all.filter(
		([, w, h]) => w * unit <= (width.maximum ?? Infinity) && h * unit <= (height.maximum ?? Infinity),
	)
	const options = fits.map(([label, w, h]) => {
		const shape = /** @type {[number, number]} */ ([w, h])
		return { value: `${w * unit}x${h * unit}`, label, about: `${w * unit} × ${h * unit} pixels`, shape }
	})
	parts.shapes = chips("Shape", options, value => {
		const [w, h] = value.split("x").map(Number)
		controls.get("width")?.write(w === width.default ? undefined : w)
		controls.get("height")?.write(h === height.default ? undefined : h)
		changed()
	})
	if (fields.get("seamless")) {
		parts.loop = el("input", { type: "checkbox", name: "seamless", on: { change: changed } })
		parts.shapes.node.append(
			el(
				"label",
				{ class: "chip", title: String(fields.get("seamless")?.description) },
				parts.loop,
				icon("round"),
				el("span", {}, "Loop"),
			),
		)
	}
	return parts.shapes.node
}

/** The presets, with names for those that are known. */
function speed(changed) {
	const { enum: words = [], description, default: usual } = /** @type {Field} */ (fields.get("preset"))
	const known = /** @type {Record<string, string>} */ ({ default: "As in the paper", fast: "Quick look" })
	parts.presets = chips(
		"How",
		words.map(value => ({
			value,
			label: known[value] ?? value,
			about: value === usual ? "What the paper and the hosted model do" : description,
		})),
		changed,
	)
	parts.presets.choose(usual)
	return parts.presets.node
}

/** The seed with its dice and its lock. */
function seeds(changed) {
	const field = /** @type {Field} */ (fields.get("seed"))
	parts.seed = el("input", {
		id: "in-seed",
		name: "seed",
		inputmode: "numeric",
		autocomplete: "off",
		placeholder: "a new one each time",
		"aria-describedby": "about-seed",
	})
	parts.lock = tool("open", "Keep this seed", () => setLock(parts.lock.getAttribute("aria-pressed") !== "true"), {
		bare: true,
		"aria-pressed": "false",
	})
	parts.seed.addEventListener("input", () => {
		setLock(parts.seed.value.trim() !== "", false)
		changed()
	})
	return el(
		"div",
		{ class: "field", id: "of-seed" },
		el("label", { htmlFor: "in-seed" }, field.title),
		el(
			"div",
			{ class: "seed" },
			parts.seed,
			tool("dice", "Another seed", () => ((parts.seed.value = String(roll())), setLock(true, false), changed()), {
				bare: true,
			}),
			parts.lock,
		),
		el(
			"p",
			{ class: "about", id: "about-seed" },
			"The same seed and settings draw the same picture. Locked, it stays; open, each picture gets a new one.",
		),
		el("p", { class: "wrong", id: "wrong-seed", hidden: true }),
	)
}

const roll = () => crypto.getRandomValues(new Uint32Array(1))[0] % SEEDS

function setLock(on, tell = true) {
	parts.lock.setAttribute("aria-pressed", String(on))
	parts.lock.replaceChild(icon(on ? "lock" : "open"), parts.lock.firstChild)
	if (on && parts.seed.value.trim() === "") parts.seed.value = String(roll())
	if (tell) {
		save()
		typed.emit()
	}
}

const locked = () => parts.lock?.getAttribute("aria-pressed") === "true"

/** Shows which shape the size is. */
function mark() {
	parts.shapes?.choose(`${number("width")}x${number("height")}`)
}

/** What the form says, without what is left out. @returns {Entries} */
export function read() {
	/** @type {Entries} */
	const entries = []
	for (const name of fields.keys()) {
		let text = controls.get(name)?.read() ?? ""
		if (name === "prompt" && $("prompt").value !== "") text = JSON.stringify($("prompt").value)
		if (name === "preset" && parts.presets && parts.presets.value() !== fields.get("preset")?.default)
			text = JSON.stringify(parts.presets.value())
		if (name === "seamless" && parts.loop?.checked) text = "true"
		if (name === "seed" && parts.seed) text = literal(parts.seed.value)
		if (text !== "") entries.push([name, text])
	}
	return entries
}

/** @param {Entries} entries */
export const toJson = entries => `{${entries.map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(",")}}`

/** The inputs of all pictures of one click: they differ in their seeds. @returns {Entries[]} */
export function pictures() {
	const entries = read()
	const many = Number(parts.counts.value() || 1)
	if (!parts.seed) return Array.from({ length: many }, () => entries)
	const [keep, given] = [locked(), literal(parts.seed.value)]
	const rest = entries.filter(([name]) => name !== "seed")
	const all = Array.from({ length: many }, (_, at) => {
		// What is not a whole number is for the server to refuse.
		const next =
			keep && /^\d+$/.test(given) ? String(BigInt(given) + BigInt(at)) : keep && given ? given : String(roll())
		if (!keep && at === 0) parts.seed.value = next
		return [...rest, /** @type {[string, string]} */ (["seed", next])]
	})
	typed.emit()
	return all
}

/**
 * Fills the form with the inputs of a prediction. Returns what is to be said of pictures that it cannot have, because
 * only their hashes are told.
 * @param {any} told @param {"all" | "prompt" | "seed"} [what] @returns {string}
 */
export function fill(told, what = "all") {
	const pictures = [...fields.values()].filter(isPicture).map(field => field.name)
	const { input, missing } = withoutHashes(told, pictures)
	if (what !== "seed" && typeof input.prompt === "string") $("prompt").value = input.prompt
	if (what !== "prompt" && parts.seed && input.seed !== undefined) {
		parts.seed.value = String(input.seed)
		setLock(true, false)
	}
	if (what === "all") {
		for (const [name, field] of fields) {
			// An input after the thirteen is missing where all of them have their defaults.
			const value = input[name]
			const usual = value === undefined || value === null || value === field.default
			if (!APART.includes(name))
				controls.get(name)?.write(usual && (input.preset ?? "default") === "default" ? undefined : (value ?? undefined))
		}
		parts.presets?.choose(input.preset ?? fields.get("preset")?.default)
		if (parts.loop) parts.loop.checked = input.seamless === true
	}
	flag([])
	mark()
	save()
	drawings()
	typed.emit()
	const titles = missing.map(name => fields.get(name)?.title).join(", ")
	return titles && what === "all" ? ` Pictures that it was made from are not in it; give them again: ${titles}.` : ""
}

/** Shows what the server says about values; returns what is about none of them. @param {{ loc: string[], msg: string }[]} details */
export function flag(details) {
	for (const node of document.querySelectorAll(".wrong")) Object.assign(node, { hidden: true, textContent: "" })
	for (const node of document.querySelectorAll("[aria-invalid]")) {
		node.removeAttribute("aria-invalid")
		node.setAttribute("aria-describedby", String(node.getAttribute("aria-describedby")).replace(/^wrong-\S+ /, ""))
	}
	const rest = []
	/** @type {HTMLElement | undefined} */
	let first
	for (const { loc, msg } of details) {
		const name = String(loc.at(-1))
		const [entry, place] = [$(`in-${name}`) ?? (name === "prompt" ? $("prompt") : null), $(`wrong-${name}`)]
		if (!entry || !place) {
			rest.push(`${loc.slice(1).join(".")}: ${msg}`)
			continue
		}
		Object.assign(place, { hidden: false, textContent: msg })
		entry.setAttribute("aria-invalid", "true")
		entry.setAttribute("aria-describedby", `wrong-${name} ${entry.getAttribute("aria-describedby")}`)
		entry.closest("details")?.setAttribute("open", "")
		first ??= entry
	}
	first?.focus()
	return rest
}

/** Keeps what is typed, for the next time that the page is opened. */
function save() {
	const draft = {
		entries: read().filter(([, text]) => text.length < 4096),
		locked: locked(),
		count: parts.counts?.value(),
	}
	try {
		localStorage.setItem(DRAFT, JSON.stringify(draft))
	} catch {
		// A browser without storage forgets it.
	}
}

function restore() {
	/** @type {{ entries?: Entries, locked?: boolean, count?: string }} */
	let draft = {}
	try {
		draft = JSON.parse(localStorage.getItem(DRAFT) ?? "{}")
	} catch {
		// Whatever it is, it is not a draft.
	}
	for (const [name, text] of draft.entries ?? []) {
		if (name === "seed") {
			if (parts.seed && draft.locked) parts.seed.value = text
			continue
		}
		try {
			const value = JSON.parse(text)
			if (name === "prompt") $("prompt").value = value
			else if (name === "preset") parts.presets?.choose(value)
			else if (name === "seamless" && parts.loop) parts.loop.checked = value === true
			else controls.get(name)?.write(value)
		} catch {
			// A value of an older version of the page.
		}
	}
	if (parts.lock && draft.locked) setLock(true, false)
	if (draft.count) parts.counts.choose(draft.count)
}

/** Whether nothing was typed yet. */
export const isEmpty = () => $("prompt").value.trim() === ""

/** Sets an input, and shows where. @param {string} name @param {any} value */
export function setInput(name, value) {
	const made = controls.get(name)
	if (!made) return
	made.write(value)
	made.node.closest("details")?.setAttribute("open", "")
	drawings()
	made.node.scrollIntoView({ block: "nearest" })
	parts.placement?.node.scrollIntoView({ block: "nearest" })
	save()
	typed.emit()
}
