// Where a picture lies on the canvas of the panorama, and where the texts along the strip are: shown, and dragged.

import { el, put, tool } from "./dom.js"

/** Pixels of a latent: pictures lie on the grid of latents. */
const LATENT = 8

/** The column of the latent before a column. @param {number} column */
const before = column => Math.floor(column / LATENT) * LATENT

/**
 * How wide a picture is at the height of the panorama, and how much of that is kept: as the server counts it.
 * @param {{ width: number, height: number }} size @param {number} height of the panorama
 */
const widths = (size, height) => {
	const scaled = size.height > 0 ? Math.floor((2 * size.width * height + size.height) / (2 * size.height)) : 0
	return { scaled, kept: before(scaled) }
}

/**
 * @param {(name: string) => any} control of an input
 * @param {(name: string) => number} value of an input @param {() => void} changed
 */
export function placement(control, value, changed) {
	const picture = el("img", { class: "placed", alt: "Your picture", draggable: false })
	const texts = el("div", { class: "texts" })
	const canvas = el("div", { class: "strip-canvas" }, picture, texts)
	const nudge = by => move(left() + by * LATENT)
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
	let shown = ""
	picture.addEventListener("load", () => {
		size = { width: picture.naturalWidth, height: picture.naturalHeight }
		draw()
	})

	const kept = () => widths(size, value("height")).kept
	/** The last column at which the picture may begin. */
	const last = () => before(Math.max(0, value("width") - kept()))
	/** The column at which it begins: that of the nearest latent, or the middle. */
	const left = () => {
		const given = control("image_left")?.read() ?? ""
		return before(given === "" ? Math.max(0, value("width") - kept()) / 2 : Number(given) + LATENT / 2)
	}
	const move = to => {
		control("image_left")?.write(Math.min(last(), Math.max(0, before(to + LATENT / 2))))
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
		if (url && url !== shown) {
			size = { width: 0, height: 0 }
			picture.src = shown = url
		}
		picture.style.left = `${(100 * left()) / width}%`
		picture.style.width = `${(100 * kept()) / width}%`
		put(texts, ...prompts.map(text => el("span", {}, text)))
		const where = url && size.width > 0 && place(width, height)
		words.textContent = [where, prompts.length > 0 && "The texts lie from left to right."].filter(Boolean).join(" ")
	}

	/** Where the picture lies in a panorama of a size, or why it does not. */
	function place(width, height) {
		const { scaled, kept: columns } = widths(size, height)
		const drawn = `Your picture is ${scaled} × ${height} in the panorama`
		if (columns === 0) return "Your picture is too narrow to be seen at this height; cut off some of its height."
		if (columns > width) return `${drawn}, which is only ${width} wide; choose a width of at least ${scaled}.`
		if (left() > last()) return `${drawn}, and would go past the right end; ${last()} is the last column for it.`
		return `${drawn}, and begins at column ${left()} of ${width}.`
	}
	return { node, draw }
}
