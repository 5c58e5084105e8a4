// One picture, for whoever knows its address.

import { $ } from "./dom.js"
import { inputs } from "./metadata.js"
import { Viewer } from "./viewer.js"

async function start() {
	let answer
	try {
		// The address of the page with a slash more is that of the picture.
		answer = await fetch(`${location.pathname}/picture${location.search}`)
	} catch {
		$("say").textContent = "The server cannot be reached."
		return
	}
	if (!answer.ok) {
		$("say").textContent =
			answer.status === 404
				? "There is no such picture, it is no longer kept, or the link is not complete."
				: `The picture cannot be shown: the server answered with status ${answer.status}.`
		return
	}
	const blob = await answer.blob()
	const url = URL.createObjectURL(blob)
	const [input, image] = await Promise.all([inputs(blob), decoded(url)])
	document.title = input?.prompt || "A panorama"
	const loop = input?.seamless === true || input?.loop_closure === true
	const viewer = new Viewer($("viewer"))
	viewer.show({
		url,
		width: image.naturalWidth,
		height: image.naturalHeight,
		loop,
		label: input?.prompt || "A panorama",
	})
	document.documentElement.dataset.ready = "true"
}

async function decoded(url) {
	const image = new Image()
	image.src = url
	await image.decode()
	return image
}

start()
