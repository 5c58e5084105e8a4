// Where a picture lies on the canvas of the panorama, and where the texts along the strip are: shown, and dragged.

import { el, put, tool } from "./dom.js"

/**
 * @param {(name: string) => any} control of an input
 * @param {(name: string) => number} value of an input @param {() => void} changed
 */
export function placement(control, value, changed) {
	const picture = el("img", { class: "placed", alt: "Your picture", draggable: false })
	const texts = el("div", { class: "texts" })
	const canvas = el("div", { class: "strip-canvas" }, picture, texts)
	const nudge = by => move(left() + by * 8)
	const tools = el(
		"div",
		{ class: "strip-tools" },
		tool("left", "Move the picture left", () => nudge(-1), { bare: true }),
		tool("right", "Move the picture right", () => nudge(1), { bare: true }),
		tool("fit", "Into the middle", () => (control("image_left")?.write(undefined), changed()), { bare: true }),
	)
	const words = el("figcaption", {})
	const node = el("figure", { class: "placement", hidden: true }, canvas, tools, words)
	let size = { width: 0, height: 0 }
	picture.addEventListener("load", () => {
		size = { width: picture.naturalWidth, height: picture.naturalHeight }
		draw()
	})

	const room = () => Math.max(0, value("width") - size.width)
	const left = () => {
		const given = control("image_left")?.read() ?? ""
		return given === "" ? room() / 2 : Number(given)
	}
	const move = to => {
		control("image_left")?.write(Math.round(Math.min(room(), Math.max(0, to))))
		changed()
	}

	/** @type {{ x: number, left: number } | null} */
	let from = null
	picture.addEventListener("pointerdown", event => {
		from = { x: event.clientX, left: left() }
		picture.setPointerCapture(event.pointerId)
	})
	picture.addEventListener("pointermove", event => {
		if (from) move(from.left + ((event.clientX - from.x) * value("width")) / Math.max(canvas.clientWidth, 1))
	})
	for (const name of ["pointerup", "pointercancel"]) picture.addEventListener(name, () => (from = null))

	function draw() {
		const [width, height] = [value("width"), value("height")]
		const url = JSON.parse(control("image")?.read() || '""')
		const prompts = JSON.parse(control("prompts")?.read() || "[]")
		node.hidden = !url && prompts.length === 0
		if (node.hidden || !(width > 0 && height > 0)) return
		canvas.style.aspectRatio = `${width} / ${height}`
		picture.hidden = !url
		tools.hidden = !url || !control("image_left")
		if (url && picture.src !== url) picture.src = url
		picture.style.left = `${(100 * left()) / width}%`
		picture.style.width = `${(100 * size.width) / width}%`
		put(texts, ...prompts.map(text => el("span", {}, text)))
		const fits = size.width <= width && size.height <= height
		const place = fits
			? `Your picture of ${size.width} × ${size.height} begins at column ${Math.round(left())} of ${width}.`
			: `Your picture of ${size.width} × ${size.height} is larger than the panorama; choose a larger one.`
		words.textContent = [url && place, prompts.length > 0 && "The texts lie from left to right."]
			.filter(Boolean)
			.join(" ")
	}
	return { node, draw }
}
