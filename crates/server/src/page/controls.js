// One control for each kind of input. A control is empty as long as its input is left out.

import { el, put, svg, tool } from "./dom.js"
import { isPicture } from "./schema.js"

/** @param {Field} field @param {() => void} changed @returns {Control} */
export function control(field, changed) {
	if (field.type === "boolean") return checkbox(field, changed)
	if (field.enum) return choice(field, changed)
	if (isPicture(field)) return picture(field, changed)
	if (field.type === "array" && field.items?.type === "string") return texts(field, changed)
	if (field.type === "integer" || field.type === "number") return number(field, changed)
	return text(field, changed)
}

/** What surrounds a control. */
function labelled(/** @type {Field} */ field, entry, ...inside) {
	const id = `in-${field.name}`
	entry.id = id
	entry.name = field.name
	entry.setAttribute("aria-describedby", `about-${field.name}`)
	const bounds =
		field.minimum !== undefined && field.maximum !== undefined ? ` ${field.minimum} to ${field.maximum}.` : ""
	return el(
		"div",
		{ class: "field", id: `of-${field.name}` },
		el("label", { for: id, htmlFor: id }, field.title),
		...inside,
		el("p", { class: "about", id: `about-${field.name}` }, `${field.description.replace(/\.?$/, ".")}${bounds}`),
		el("p", { class: "wrong", id: `wrong-${field.name}`, hidden: true }),
	)
}

function text(field, changed) {
	const json = field.type !== "string"
	const entry = el("textarea", { rows: 2, spellcheck: !json, placeholder: json ? "JSON" : "", on: { input: changed } })
	if (!json) entry.value = field.default ?? ""
	return {
		node: labelled(field, entry, entry),
		entry,
		read() {
			if (json) return entry.value.trim()
			return entry.value === (field.default ?? "") ? "" : JSON.stringify(entry.value)
		},
		write(value) {
			entry.value = json ? (value === undefined ? "" : JSON.stringify(value)) : (value ?? field.default ?? "")
		},
	}
}

/** Several texts, one in each line. */
function texts(field, changed) {
	const entry = el("textarea", { rows: 3, placeholder: "one in each line", on: { input: changed } })
	const read = () =>
		entry.value
			.split("\n")
			.map(line => line.trim())
			.filter(Boolean)
	return {
		node: labelled(field, entry, entry),
		entry,
		read: () => (read().length > 0 ? JSON.stringify(read()) : ""),
		write(value) {
			entry.value = (value ?? []).join("\n")
		},
	}
}

/** The JSON of a number as it was typed: it may be larger than a double can hold. @param {string} text */
export function literal(text) {
	const typed = text.trim()
	if (typed === "") return ""
	return /^-?\d+$/.test(typed) ? typed.replace(/^(-?)0+(?=\d)/, "$1") : JSON.stringify(Number(typed))
}

function number(field, changed) {
	const step = field.type === "integer" ? "1" : "any"
	const entry = el("input", { type: "number", step, placeholder: String(field.default ?? ""), on: { input: changed } })
	const { minimum, maximum } = field
	if (minimum !== undefined) entry.min = minimum
	if (maximum !== undefined) entry.max = maximum
	const slider =
		minimum !== undefined && maximum !== undefined
			? el("input", {
					type: "range",
					min: minimum,
					max: maximum,
					tabIndex: -1,
					"aria-hidden": "true",
					step: field.type === "integer" ? 1 : (maximum - minimum) / 100,
					value: field.default ?? minimum,
				})
			: null
	const follow = () => {
		if (slider) slider.value = entry.value === "" ? (field.default ?? minimum) : entry.value
	}
	slider?.addEventListener("input", () => {
		entry.value = String(Number(Number(slider.value).toFixed(4)))
		changed()
	})
	entry.addEventListener("input", follow)
	return {
		node: labelled(field, entry, el("div", { class: "number" }, slider, entry)),
		entry,
		read: () => literal(entry.value),
		write(value) {
			entry.value = value ?? ""
			follow()
		},
	}
}

function choice(field, changed) {
	const usual = field.default === undefined ? "not given" : `${field.default} (default)`
	const entry = el("select", { on: { change: changed } }, el("option", { value: "" }, usual))
	// The default can be chosen, too: what is left out may depend on other inputs.
	for (const word of field.enum ?? []) entry.append(el("option", { value: JSON.stringify(word) }, String(word)))
	return {
		node: labelled(field, entry, entry),
		entry,
		read: () => entry.value,
		write(value) {
			entry.value = value === undefined ? "" : JSON.stringify(value)
		},
	}
}

function checkbox(field, changed) {
	const entry = el("input", { type: "checkbox", checked: field.default === true, on: { change: changed } })
	const node = labelled(field, entry)
	node.classList.add("check")
	node.prepend(entry)
	return {
		node,
		entry,
		read: () => (entry.checked === (field.default === true) ? "" : String(entry.checked)),
		write(value) {
			entry.checked = value ?? field.default === true
		},
	}
}

function picture(field, changed) {
	let url = ""
	const shown = el("div", { class: "chosen" })
	const entry = el("input", { type: "file", accept: "image/png,image/jpeg,image/webp" })
	const write = (/** @type {string | undefined} */ value) => {
		url = value ?? ""
		entry.value = ""
		put(
			shown,
			url.startsWith("data:") ? el("img", { src: url, alt: "The chosen picture" }) : url && el("code", {}, url),
			url && tool("close", "Remove", () => (write(undefined), entry.focus(), changed()), { bare: true }),
		)
	}
	entry.addEventListener("change", async () => {
		if (entry.files[0]) write(await dataUrl(entry.files[0]))
		changed()
	})
	return { node: labelled(field, entry, entry, shown), entry, read: () => (url ? JSON.stringify(url) : ""), write }
}

/** A file as a data URI. @param {Blob} file @returns {Promise<string>} */
export function dataUrl(file) {
	return new Promise((done, fail) => {
		const reader = new FileReader()
		reader.onload = () => done(String(reader.result))
		reader.onerror = () => fail(reader.error)
		reader.readAsDataURL(file)
	})
}

/**
 * A few choices side by side, as radio buttons.
 * @param {string} legend @param {{ value: string, label: string, about?: string, shape?: [number, number] }[]} options
 * @param {(value: string) => void} chosen
 */
export function chips(legend, options, chosen) {
	const name = `chips-${legend.toLowerCase().replace(/\W+/g, "-")}`
	const node = el("fieldset", { class: "chips" }, el("legend", {}, legend))
	for (const { value, label, about, shape } of options)
		node.append(
			el(
				"label",
				{ class: "chip", title: about ?? "" },
				el("input", { type: "radio", name, value, on: { change: () => chosen(value) } }),
				shape && outline(shape),
				el("span", {}, label),
			),
		)
	return {
		node,
		/** @param {string} value */
		choose(value) {
			for (const entry of node.querySelectorAll("input[type=radio]")) entry.checked = entry.value === value
		},
		value: () => node.querySelector("input[type=radio]:checked")?.value ?? "",
	}
}

/** The outline of a picture of a shape. @param {[number, number]} shape */
export function outline([width, height]) {
	const scale = Math.min(22 / width, 14 / height)
	const [w, h] = [width * scale, height * scale]
	return svg(
		"svg",
		{ viewBox: "0 0 24 16", class: "outline", "aria-hidden": "true" },
		svg("rect", { x: 12 - w / 2, y: 8 - h / 2, width: w, height: h, rx: 1.5 }),
	)
}
