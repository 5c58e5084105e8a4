// A picture that can be moved, zoomed and, if its ends meet, turned for ever.

import { Cylinder } from "./cylinder.js"
import { calm, el, put, tool } from "./dom.js"

/** The greatest zoom, in pixels of the screen for one of the picture. */
const MAX_ZOOM = 4
/** How far a button or an arrow key moves the picture, as a share of what is seen. */
const STEP = 0.25

export class Viewer {
	/** @type {Picture | null} */
	#picture = null
	#x = 0
	#y = 0
	#scale = 1
	/** What a change of the size of the window keeps. @type {"fit" | "fill" | "free"} */
	#mode = "fill"
	/** @type {Map<number, { x: number, y: number }>} Fingers and buttons that are down. */
	#down = new Map()
	#speed = { x: 0, y: 0 }
	/** @type {Cylinder | null} */
	#round = null

	/** @param {HTMLElement} host @param {...any} more tools behind its own */
	constructor(host, ...more) {
		this.host = host
		this.image = el("div", { class: "view-image", role: "img" })
		this.view = el(
			"div",
			{ class: "view", tabIndex: 0, role: "group", "aria-label": "Viewer; arrows move, plus and minus zoom" },
			this.image,
		)
		this.roundTool = tool("round", "All around", () => this.turn(!this.#round), {
			bare: true,
			"aria-pressed": "false",
		})
		this.tools = el(
			"div",
			{ class: "view-tools", role: "toolbar", "aria-label": "Viewer" },
			tool("left", "Look left", () => this.step(1, 0), { bare: true }),
			tool("right", "Look right", () => this.step(-1, 0), { bare: true }),
			tool("minus", "Zoom out", () => this.zoom(1 / 1.5), { bare: true }),
			tool("plus", "Zoom in", () => this.zoom(1.5), { bare: true }),
			tool("fit", "Show all of it", () => this.reset("fit"), { bare: true }),
			this.roundTool,
			tool("full", "Full screen", () => this.full(), { bare: true }),
			...more,
		)
		put(host, this.view, this.tools)
		this.#listen()
		new ResizeObserver(() => this.#resized()).observe(this.view)
	}

	/** @param {Picture} picture */
	show(picture) {
		const same =
			this.#picture &&
			this.#picture.width === picture.width &&
			this.#picture.height === picture.height &&
			this.#picture.label === picture.label
		this.turn(false)
		this.#picture = picture
		this.image.style.backgroundImage = `url("${picture.url}")`
		this.image.classList.toggle("loop", picture.loop)
		this.image.classList.toggle("soft", picture.soft === true)
		this.image.setAttribute("aria-label", picture.label)
		this.roundTool.hidden = !picture.loop || picture.soft === true
		this.host.classList.add("filled")
		// Its own shape where there is room for it, and never a sliver.
		this.host.style.setProperty("--shape", String(picture.width / picture.height))
		if (!same) this.reset("fill")
		else this.#draw()
	}

	clear() {
		this.turn(false)
		this.#picture = null
		this.image.style.backgroundImage = ""
		this.image.removeAttribute("aria-label")
		this.host.classList.remove("filled")
	}

	/** Shows all of the picture, or fills the height with it. @param {"fit" | "fill"} mode */
	reset(mode) {
		this.#mode = mode
		this.#round?.reset()
		if (!this.#picture) return
		const { fit, fill } = this.#scales()
		this.#scale = mode === "fit" ? fit : fill
		this.#x = (this.view.clientWidth - this.#picture.width * this.#scale) / 2
		this.#y = (this.view.clientHeight - this.#picture.height * this.#scale) / 2
		this.#draw()
	}

	/** Zooms about a point of the view, its middle if none is given. @param {number} by @param {number} [x] @param {number} [y] */
	zoom(by, x = this.view.clientWidth / 2, y = this.view.clientHeight / 2) {
		if (this.#round) return this.#round.zoom(by)
		if (!this.#picture) return
		const scale = Math.min(
			Math.max(this.#scale * by, this.#scales().fit),
			Math.max(MAX_ZOOM / devicePixelRatio, this.#scales().fill),
		)
		this.#x = x - ((x - this.#x) * scale) / this.#scale
		this.#y = y - ((y - this.#y) * scale) / this.#scale
		this.#scale = scale
		this.#mode = "free"
		this.#draw()
	}

	/** Moves what is seen by a step. @param {number} x @param {number} y */
	step(x, y) {
		this.#speed = { x: 0, y: 0 }
		const by = { x: x * STEP * this.view.clientWidth, y: y * STEP * this.view.clientHeight }
		if (calm()) return this.#move(by.x, by.y)
		// The sum of what gliding moves is the first speed divided by what it loses each time.
		this.#speed = { x: by.x * 0.12, y: by.y * 0.12 }
		this.#glide(0.88)
	}

	full() {
		if (document.fullscreenElement) document.exitFullscreen()
		else this.host.requestFullscreen?.().catch(() => {})
	}

	/** Shows a loop from inside, or flat again. @param {boolean} on */
	turn(on) {
		if (on && this.#picture && !this.#round) {
			this.#round = Cylinder.create(this.view, this.#picture)
			if (!this.#round) this.roundTool.hidden = true
		} else if (!on) {
			this.#round?.remove()
			this.#round = null
		}
		this.host.classList.toggle("turned", this.#round !== null)
		this.roundTool.setAttribute("aria-pressed", String(this.#round !== null))
	}

	#scales() {
		const { width, height } = /** @type {Picture} */ (this.#picture)
		const across = this.view.clientWidth / width
		const down = this.view.clientHeight / height
		// A tall picture is shown whole, a wide one is as high as the view.
		return {
			fit: Math.min(across, down),
			fill: width >= height ? Math.max(down, Math.min(across, down)) : Math.min(across, down),
		}
	}

	#resized() {
		if (this.#mode !== "free") this.reset(this.#mode)
		else this.#draw()
		this.#round?.draw()
	}

	#move(x, y) {
		if (this.#round) return this.#round.move(x, y)
		this.#x += x
		this.#y += y
		this.#draw()
	}

	#draw() {
		if (!this.#picture) return
		const [width, height] = [this.#picture.width * this.#scale, this.#picture.height * this.#scale]
		const within = (at, length, room) =>
			length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, at))
		if (!this.#picture.loop) this.#x = within(this.#x, width, this.view.clientWidth)
		else this.#x %= width
		this.#y = within(this.#y, height, this.view.clientHeight)
		const style = this.image.style
		style.backgroundSize = `${width}px ${height}px`
		style.backgroundPosition = `${this.#x}px ${this.#y}px`
	}

	#glide(keep) {
		if (this.#down.size > 0) return
		this.#move(this.#speed.x, this.#speed.y)
		this.#speed.x *= keep
		this.#speed.y *= keep
		if (Math.hypot(this.#speed.x, this.#speed.y) > 0.3) requestAnimationFrame(() => this.#glide(keep))
	}

	#listen() {
		const view = this.view
		const place = (/** @type {PointerEvent | WheelEvent | MouseEvent} */ event) => {
			const box = view.getBoundingClientRect()
			return { x: event.clientX - box.left, y: event.clientY - box.top }
		}
		view.addEventListener("pointerdown", event => {
			if (!this.#picture || event.button > 0) return
			this.#down.set(event.pointerId, place(event))
			this.#speed = { x: 0, y: 0 }
			view.setPointerCapture(event.pointerId)
		})
		view.addEventListener("pointermove", event => {
			const before = this.#down.get(event.pointerId)
			if (!before) return
			const now = place(event)
			const other = [...this.#down].find(([id]) => id !== event.pointerId)?.[1]
			if (other) {
				const [was, is] = [
					Math.hypot(before.x - other.x, before.y - other.y),
					Math.hypot(now.x - other.x, now.y - other.y),
				]
				if (was > 0) this.zoom(is / was, (now.x + other.x) / 2, (now.y + other.y) / 2)
			} else {
				this.#speed = { x: now.x - before.x, y: now.y - before.y }
				this.#move(this.#speed.x, this.#speed.y)
			}
			this.#down.set(event.pointerId, now)
		})
		for (const name of ["pointerup", "pointercancel"])
			view.addEventListener(name, event => {
				if (this.#down.delete(event.pointerId) && this.#down.size === 0 && !calm()) this.#glide(0.94)
			})
		view.addEventListener("dblclick", () => this.reset(this.#mode === "fit" ? "fill" : "fit"))
		// The wheel scrolls the page, unless a key is held or the picture has the whole screen.
		view.addEventListener(
			"wheel",
			event => {
				if (
					!this.#picture ||
					!(event.ctrlKey || event.metaKey || document.fullscreenElement || this.host.dataset.wheel)
				)
					return
				event.preventDefault()
				const { x, y } = place(event)
				this.zoom(Math.exp(-event.deltaY / (event.ctrlKey ? 150 : 500)), x, y)
			},
			{ passive: false },
		)
		/** @type {Record<string, () => void>} */
		const keys = {
			ArrowLeft: () => this.step(1, 0),
			ArrowRight: () => this.step(-1, 0),
			ArrowUp: () => this.step(0, 1),
			ArrowDown: () => this.step(0, -1),
			"+": () => this.zoom(1.5),
			"=": () => this.zoom(1.5),
			"-": () => this.zoom(1 / 1.5),
			0: () => this.reset("fit"),
			f: () => this.full(),
		}
		view.addEventListener("keydown", event => {
			const act = keys[event.key]
			if (!act || !this.#picture || event.ctrlKey || event.metaKey || event.altKey) return
			event.preventDefault()
			event.stopPropagation()
			act()
		})
	}
}
