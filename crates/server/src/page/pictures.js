// The pictures of predictions. An image cannot send a token, so with one they are fetched and kept as blobs.

import { ask, path, token } from "./api.js"

/** Blobs that are kept at most. */
const MAX_KEPT = 80
/** @type {Map<string, Promise<string>>} */
const kept = new Map()
/** Whether the server makes thumbnails. */
let small = false

/** @param {boolean} can */
export const thumbnails = can => (small = can)

/** The address of a picture on the server, relative to the page. @param {string} id @param {number} [width] @param {number} [index] */
export function address(id, width, index = 0) {
	const query = new URLSearchParams()
	if (width && small) query.set("width", String(width))
	if (index) query.set("n", String(index))
	return `${path(id)}/output${query.size ? `?${query}` : ""}`
}

/** A URL that an image can show. @param {string} id @param {number} [width] @param {number} [index] @returns {Promise<string>} */
export function source(id, width, index) {
	const url = address(id, width, index)
	let found = kept.get(url)
	if (found) {
		kept.delete(url)
	} else {
		found = blob(url).then(blob => URL.createObjectURL(blob))
		found.catch(() => kept.delete(url))
	}
	kept.set(url, found)
	for (const [old, picture] of [...kept].slice(0, Math.max(0, kept.size - MAX_KEPT))) {
		kept.delete(old)
		picture.then(URL.revokeObjectURL, () => {})
	}
	return found
}

/** A URL for a small picture: that of the server where it needs no token, so that the browser's cache keeps it. @param {string} id */
export const thumbnail = async id => (token.value || !small ? source(id, 512) : address(id, 512))

/** @param {string} url @returns {Promise<Blob>} */
async function blob(url) {
	return (await ask(url)).blob()
}

/** The file of a picture. @param {string} id @param {number} [index] */
export const file = (id, index) => blob(address(id, undefined, index))

/**
 * A picture in another format, made here.
 * @param {string} url of a picture @param {string} type @returns {Promise<Blob>}
 */
export async function converted(url, type) {
	const image = new Image()
	image.src = url
	await image.decode()
	const canvas = document.createElement("canvas")
	canvas.width = image.naturalWidth
	canvas.height = image.naturalHeight
	canvas.getContext("2d")?.drawImage(image, 0, 0)
	return new Promise((done, fail) =>
		canvas.toBlob(
			blob => (blob?.type === type ? done(blob) : fail(new Error(`this browser cannot write ${type}`))),
			type,
			0.92,
		),
	)
}
