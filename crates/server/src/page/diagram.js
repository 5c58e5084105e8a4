// Small pictures of what the settings of the synchronisation do, drawn from their values.

import { el, put, svg } from "./dom.js"

/** Most windows and steps that are drawn. */
const MAX_DRAWN = 60

/** @param {(name: string) => number} value the value of an input @param {number} window its width in pixels */
export function diagram(value, window) {
	const node = el("div", { class: "diagrams" })
	return {
		node,
		draw() {
			put(node, windows(value, window), steps(value))
		},
	}
}

/** The strip with its windows and the anchor in the middle. */
function windows(/** @type {(name: string) => number} */ value, window) {
	const [width, pitch] = [value("width"), value("stride") * 8]
	if (!(width >= window && pitch > 0)) return null
	const places = Math.floor((width - window) / pitch) + 1
	const picture = svg("svg", {
		viewBox: "0 0 240 46",
		class: "diagram",
		role: "img",
		"aria-label": `${places} windows across, the one in the middle is the anchor`,
	})
	const scale = 232 / width
	picture.append(svg("rect", { x: 4, y: 14, width: 232, height: 20, class: "strip", rx: 2 }))
	const anchor = Math.floor(places / 2)
	const pull = Math.min(1, value("sync_weight") / 30)
	for (let at = 0; at < places && places <= MAX_DRAWN; at += 1) {
		const x = 4 + at * pitch * scale
		picture.append(
			svg("rect", {
				x,
				y: at === anchor ? 10 : 12 + (at % 3) * 2,
				width: window * scale,
				height: at === anchor ? 28 : 20,
				rx: 2,
				class: at === anchor ? "anchor" : "window",
			}),
		)
	}
	const middle = 4 + (anchor * pitch + window / 2) * scale
	for (const [from, to] of [
		[20, middle - 22],
		[220, middle + 22],
	])
		if (Math.abs(to - from) > 12)
			picture.append(
				svg("path", {
					d: `M${from} 24H${to}m${from < to ? "-5 -4l5 4l-5 4" : "5 -4l-5 4l5 4"}`,
					class: "pull",
					"stroke-width": 0.5 + 3 * pull,
				}),
			)
	return el(
		"figure",
		{},
		picture,
		el(
			"figcaption",
			{},
			`${places} windows across, ${pitch} pixels apart. Those at the sides are drawn towards the anchor in the middle.`,
		),
	)
}

/** The steps, and how strongly each is synchronised. */
function steps(/** @type {(name: string) => number} */ value) {
	const [all, weight, decay, often, first] = [
		"num_inference_steps",
		"sync_weight",
		"sync_decay_rate",
		"sync_freq",
		"sync_threshold",
	].map(value)
	if (!(all > 0) || !(often > 0)) return null
	const shown = Math.min(all, MAX_DRAWN)
	const width = 232 / shown
	let synchronised = 0
	const picture = svg("svg", { viewBox: "0 0 240 46", class: "diagram", role: "img" })
	for (let step = 0; step < shown; step += 1) {
		const active = step < first && step % often === 0
		const height = active ? Math.max(3, (38 * weight * decay ** step) / 30) : 2
		if (active) synchronised += 1
		picture.append(
			svg("rect", {
				x: 4 + step * width,
				y: 42 - height,
				width: Math.max(width - 1, 0.8),
				height,
				class: active ? "anchor" : "strip",
			}),
		)
	}
	const words = `${synchronised} of ${all} steps are synchronised${weight > 0 && synchronised > 0 ? ", the first ones most" : ""}.`
	picture.setAttribute("aria-label", words)
	return el("figure", {}, picture, el("figcaption", {}, words))
}
