// Two pictures, one over the other, with a slider between them.

import { el, tool } from "./dom.js"

/** @type {HTMLElement | null} */
let open = null

export const Compare = {
	/** @param {HTMLElement} host @param {[any, any]} predictions @param {string[]} urls */
	open(host, predictions, urls) {
		this.close()
		const [one, other] = urls.map((src, at) =>
			el("img", {
				src,
				alt: `${at === 0 ? "Left" : "Right"}: ${predictions[at].input.prompt}, seed ${predictions[at].input.seed}`,
				draggable: false,
			}),
		)
		other.classList.add("over")
		const line = el("div", { class: "line" })
		const slider = el("input", {
			type: "range",
			min: 0,
			max: 100,
			value: 50,
			step: 0.5,
			"aria-label": "How much of the left picture is seen",
		})
		const move = () => {
			other.style.clipPath = `inset(0 0 0 ${slider.value}%)`
			line.style.left = `${slider.value}%`
		}
		slider.addEventListener("input", move)
		move()
		const { width, height } = predictions[0].input
		const frame = el(
			"div",
			{ class: "compare-frame", style: { aspectRatio: `${width} / ${height}` } },
			one,
			other,
			line,
			slider,
		)
		open = el(
			"section",
			{ class: "compare", "aria-label": "Two pictures compared" },
			frame,
			el(
				"div",
				{ class: "compare-names" },
				...predictions.map((known, at) =>
					el("p", {}, `${at === 0 ? "Left" : "Right"}: seed ${known.input.seed}, ${known.input.prompt}`),
				),
				tool("close", "End the comparison", () => this.close()),
			),
		)
		host.classList.add("comparing")
		host.parentElement?.classList.add("comparing")
		host.append(/** @type {HTMLElement} */ (open))
		slider.focus({ preventScroll: true })
		host.scrollIntoView({ block: "nearest" })
	},

	close() {
		for (const node of document.querySelectorAll(".comparing")) node.classList.remove("comparing")
		open?.remove()
		open = null
	},
}

/** Keeps the two pictures that are to be compared. @param {(one: any, other: any) => void} act */
export function pair(act) {
	/** @type {any[]} */
	let chosen = []
	return {
		/** @param {string} id */
		has: id => chosen.some(one => one.id === id),
		/** @param {any} prediction */
		toggle(prediction) {
			chosen = chosen.some(one => one.id === prediction.id)
				? chosen.filter(one => one.id !== prediction.id)
				: [...chosen, prediction].slice(-2)
			if (chosen.length === 2) {
				act(chosen[0], chosen[1])
				chosen = []
			}
		},
	}
}
