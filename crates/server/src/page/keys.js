// The keys of the whole page. Those of the viewer and of the history are theirs.

import { $ } from "./dom.js"
import { neighbour } from "./history.js"
import { jobs } from "./jobs.js"

/** @param {{ draw: () => void, stop: () => void }} acts */
export function start({ draw, stop }) {
	addEventListener("keydown", event => {
		const where = /** @type {HTMLElement} */ (event.target)
		if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
			event.preventDefault()
			draw()
			return
		}
		if (event.key === "Escape") {
			// First what is open closes; a picture is stopped only by a key that would do nothing else.
			const menu = /** @type {HTMLDetailsElement | null} */ (
				document.querySelector("details.menu[open], #status[open]")
			)
			if (menu) {
				menu.open = false
				menu.querySelector("summary")?.focus()
			} else if (document.querySelector(".compare"))
				/** @type {any} */ (document.querySelector(".compare-names .tool")).click()
			else if (!document.fullscreenElement && jobs.size > 0 && !event.isComposing) stop()
			return
		}
		const typing = where.closest("input, textarea, select, [role=tab], [contenteditable]")
		if (typing || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
		if (where === document.body && (event.key === "ArrowLeft" || event.key === "ArrowRight"))
			neighbour(event.key === "ArrowLeft" ? -1 : 1)
		if (event.key === "/") {
			event.preventDefault()
			$("prompt").focus()
		}
	})
	// A menu closes when something else is used.
	document.addEventListener("pointerdown", event => {
		for (const menu of document.querySelectorAll("details.menu[open], #status[open]"))
			if (!menu.contains(/** @type {Node} */ (event.target))) /** @type {HTMLDetailsElement} */ (menu).open = false
	})
}
