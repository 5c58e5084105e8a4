// Elements without HTML as text, so that the page passes `require-trusted-types-for 'script'`.

/** @typedef {Record<string, any>} Props */

/** The element of an id. @param {string} id @returns {any} */
export const $ = id => document.getElementById(id)

/**
 * An element. Of the properties, `on` has listeners, `style` styles, `data` the dataset; those with a dash, `role`,
 * `for`, `list` and `class` are attributes, all others are properties of the element.
 * @param {string} tag @param {Props} [props] @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function el(tag, props = {}, ...children) {
	return fill(document.createElement(tag), props, children)
}

/** An element of SVG; its properties are attributes. @param {string} tag @param {Props} [props] @param {...any} children @returns {any} */
export function svg(tag, props = {}, ...children) {
	const node = document.createElementNS("http://www.w3.org/2000/svg", tag)
	for (const [name, value] of Object.entries(props)) node.setAttribute(name, String(value))
	node.append(...children.filter(Boolean))
	return node
}

const ATTRIBUTES = new Set(["role", "for", "class", "list", "popover", "inputmode", "enterkeyhint"])

function fill(node, /** @type {Props} */ props, children) {
	for (const [name, value] of Object.entries(props)) {
		if (value === undefined || value === null) continue
		if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act)
		else if (name === "style") Object.assign(node.style, value)
		else if (name === "data") Object.assign(node.dataset, value)
		else if (name.includes("-") || ATTRIBUTES.has(name)) node.setAttribute(name, String(value))
		else node[name] = value
	}
	node.append(...children.filter(child => child !== null && child !== undefined && child !== false))
	return node
}

/** @type {Record<string, string>} Paths of icons on a field of 24 by 24. */
const ICONS = {
	bell: "M6 16V11a6 6 0 0 1 12 0v5l2 2H4zM10 21h4",
	close: "M5 5l14 14M19 5L5 19",
	compare: "M12 3v18M3 6h6v12H3zM15 6h6v12h-6z",
	copy: "M9 9h11v11H9zM5 15H4V4h11v1",
	dice: "M4 4h16v16H4zM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01",
	down: "M12 4v12M6 11l6 6 6-6M4 20h16",
	fit: "M3 9h18v6H3z",
	full: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
	left: "M15 5l-7 7 7 7",
	link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1",
	lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
	minus: "M5 12h14",
	open: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 6.6-1.6",
	plus: "M12 5v14M5 12h14",
	redo: "M20 5v5h-5M19.5 10A8 8 0 1 0 20 14",
	right: "M9 5l7 7-7 7",
	round: "M3 12c0-3 4-5 9-5s9 2 9 5-4 5-9 5c-1 0-2 0-3-.3M11 14l-2.500 2.700L11 20",
	seed: "M4 9h16M4 15h16M10 4L8 20M16 4l-2 16",
	spark: "M12 3l2 6.500 6.500 2.500-6.500 2.500L12 21l-2-6.500L3.500 12 10 9.500z",
	stop: "M7 7h10v10H7z",
	text: "M5 6h14M5 11h14M5 16h8",
	trash: "M5 7h14M10 4h4M7 7l1 13h8l1-13",
}

/** An icon, which screen readers skip. @param {string} name */
export function icon(name) {
	return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }))
}

/**
 * A button with an icon and, unless it is only for screen readers, a word.
 * @param {string} name of the icon @param {string} label @param {(event: any) => void} act @param {Props} [props]
 */
export function tool(name, label, act, props = {}) {
	const { bare = false, ...rest } = props
	const word = bare ? el("span", { class: "hidden-text" }, label) : el("span", {}, label)
	return el(
		"button",
		{ type: "button", class: "tool", title: bare ? label : "", ...rest, on: { click: act } },
		icon(name),
		word,
	)
}

/** Replaces the children of an element. @param {Element} node @param {...any} children */
export function put(node, ...children) {
	node.replaceChildren(...children.filter(child => child !== null && child !== undefined && child !== false))
}

/** Whether the reader asked for less movement. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches
