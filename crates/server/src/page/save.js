// What can be taken from a picture: files, the clipboard, links.

import { json, path } from "./api.js"
import { el, icon, tool } from "./dom.js"
import { converted, file } from "./pictures.js"
import { toast } from "./toast.js"
import { fileName } from "./words.js"

/** @type {[type: string, end: string, name: string][]} */
const FORMATS = [
	["image/png", "png", "PNG"],
	["image/jpeg", "jpg", "JPEG"],
	["image/webp", "webp", "WebP"],
]

const failed = what => error => toast(`${what}: ${error.message}.`, { bad: true })

/** A menu of files. @param {any} known @param {string} url of its picture @param {string} type of it */
export function saving(known, url, type) {
	const menu = el("details", { class: "menu" }, el("summary", { class: "tool" }, icon("down"), "Save"))
	const save = (what, end) => {
		const href = typeof what === "string" ? what : URL.createObjectURL(what)
		el("a", { href, download: `${fileName(known.input)}.${end}` }).click()
		if (href !== what) setTimeout(URL.revokeObjectURL, 60_000, href)
		menu.open = false
	}
	const list = el("div", { class: "menu-list" })
	// That of the server first: it has the settings in it.
	for (const [kind, end, name] of FORMATS.toSorted((a, b) => Number(b[0] === type) - Number(a[0] === type)))
		list.append(
			kind === type
				? tool("down", `${name}, with its settings`, () => save(url, end))
				: tool("down", name, () =>
						converted(url, kind).then(made => save(made, end), failed("The picture cannot be saved")),
					),
		)
	const settings = () => JSON.stringify({ ...known, output: undefined }, null, 2)
	list.append(
		tool("down", "Settings as JSON", () => save(new Blob([settings()], { type: "application/json" }), "json")),
	)
	menu.append(list)
	return menu
}

/** @param {any} known @param {string} url @param {number} index @param {boolean} links whether there are links to pictures */
export function sharing(known, url, index, links) {
	const said = (done, what) => done.then(() => toast(`${what} is in the clipboard.`), failed("It cannot be copied"))
	const copy = async () => {
		const blob = await file(known.id, index)
		const png = blob.type === "image/png" ? blob : await converted(url, "image/png")
		await navigator.clipboard.write([new ClipboardItem({ "image/png": png })])
	}
	const copyLink = async () => navigator.clipboard.writeText(await link(known.id, index))
	// Browsers give pages without HTTPS no clipboard, except on this machine.
	const can = Boolean(navigator.clipboard) && "ClipboardItem" in window
	return [
		can && tool("copy", "Copy", () => said(copy(), "The picture"), { "aria-label": "Copy the picture" }),
		links &&
			can &&
			tool("link", "Link", () => said(copyLink(), "A link to this picture"), {
				"aria-label": "Copy a link to the picture",
			}),
		links && tool("full", "Open alone", () => openAlone(known.id, index)),
	].filter(Boolean)
}

/** The address of the page that shows one picture to whoever knows it. @param {string} id @param {number} index */
async function link(id, index) {
	const { key } = await json(`${path(id)}/link`)
	return new URL(`view/${encodeURIComponent(id)}?key=${key}${index ? `&n=${index}` : ""}`, document.baseURI).href
}

async function openAlone(id, index) {
	// A window that opens later than the click is blocked.
	const opened = window.open("about:blank")
	try {
		const url = await link(id, index)
		if (opened) opened.location.href = url
	} catch (error) {
		opened?.close()
		failed("The picture cannot be opened")(error)
	}
}
