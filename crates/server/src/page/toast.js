// Short messages at the edge of the page, some with a button.

import { el, tool } from "./dom.js"

/**
 * @param {string} text
 * @param {{ action?: string, act?: () => void, done?: () => void, seconds?: number, bad?: boolean }} [options] `done` runs when it
 *   goes without the action.
 * @returns {() => void} what ends it
 */
export function toast(text, { action, act, done, seconds = 6, bad = false } = {}) {
	const close = acted => {
		clearTimeout(timer)
		node.remove()
		open.delete(node)
		if (!acted) done?.()
	}
	const node = el(
		"div",
		{ class: bad ? "toast bad" : "toast" },
		el("span", {}, text),
		action && el("button", { type: "button", on: { click: () => (close(true), act?.()) } }, action),
		tool("close", "Dismiss", () => close(false), { bare: true }),
	)
	let timer = setTimeout(close, seconds * 1000, false)
	// A message that somebody reads or reaches for stays.
	const hold = () => clearTimeout(timer)
	const go = () => (timer = setTimeout(close, seconds * 1000, false))
	for (const [event, what] of /** @type {[string, () => void][]} */ ([
		["pointerenter", hold],
		["focusin", hold],
		["pointerleave", go],
		["focusout", go],
	]))
		node.addEventListener(event, () => (clearTimeout(timer), what()))
	const place = /** @type {HTMLElement} */ (document.getElementById("toasts"))
	place.append(node)
	open.set(node, done)
	while (place.children.length > 3)
		place.firstElementChild?.querySelector(":scope > .tool")?.dispatchEvent(new MouseEvent("click"))
	return () => close(false)
}

/** @type {Map<Element, (() => void) | undefined>} */
const open = new Map()

// What was announced and not undone happens, also when the page is left.
addEventListener("pagehide", () => {
	for (const done of open.values()) done?.()
	open.clear()
})
