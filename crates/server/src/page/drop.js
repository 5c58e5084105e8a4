// Pictures that are dropped on the page or pasted into it. One that was made here brings its settings back.

import { dataUrl } from "./controls.js"
import { $ } from "./dom.js"
import { fill, setInput } from "./form.js"
import { inputs } from "./metadata.js"
import { isPicture } from "./schema.js"
import { toast } from "./toast.js"

/** @param {Schema} schema */
export function start(schema) {
	const names = schema.fields.filter(isPicture).map(field => field.name)
	const take = async (/** @type {File | null | undefined} */ file) => {
		if (!file) return
		const input = await inputs(file)
		if (input) {
			toast(`This picture was made here: its settings are in the form.${fill(input)}`)
		} else if (names.length > 0 && file.type.startsWith("image/")) {
			const name = ["image", "anchor_image"].find(name => names.includes(name)) ?? names[0]
			setInput(name, await dataUrl(file))
			toast("The picture is in the form, to be drawn from.")
		} else
			toast(
				file.type.startsWith("image/")
					? "This picture has no settings of this program in it."
					: "This is not a picture.",
				{ bad: true },
			)
	}
	let inside = 0
	const mark = () => $("drop").toggleAttribute("data-over", inside > 0)
	addEventListener("dragenter", event => {
		if (!event.dataTransfer?.types.includes("Files")) return
		inside += 1
		mark()
	})
	addEventListener("dragleave", () => {
		inside = Math.max(0, inside - 1)
		mark()
	})
	addEventListener("dragover", event => event.preventDefault())
	addEventListener("drop", event => {
		inside = 0
		mark()
		if (!event.dataTransfer?.files.length) return
		event.preventDefault()
		take(event.dataTransfer.files[0])
	})
	addEventListener("paste", event => {
		const file = [...(event.clipboardData?.files ?? [])].find(file => file.type.startsWith("image/"))
		if (file) {
			event.preventDefault()
			take(file)
		}
	})
	$("open-file").addEventListener("click", () => $("file").click())
	$("file").addEventListener("change", () => (take($("file").files[0]), ($("file").value = "")))
}
