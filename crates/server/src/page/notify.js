// Progress in the title of the tab, and a notification when a picture is done, for those who asked for it.

import { $ } from "./dom.js"
import { changed, ended, jobs, left } from "./jobs.js"
import { toast } from "./toast.js"

const TITLE = document.title
const PLACE = "notify"

let done = 0

export function start() {
	const button = $("notify")
	button.hidden = !("Notification" in window) || !isSecureContext
	const show = () => button.setAttribute("aria-pressed", String(wanted()))
	show()
	button.addEventListener("click", async () => {
		if (wanted()) localStorage.removeItem(PLACE)
		else if ((await Notification.requestPermission()) === "granted") {
			localStorage.setItem(PLACE, "yes")
			toast("You get a notification when a picture is done and you are elsewhere.")
		} else toast("The browser does not allow notifications of this page; its settings can change that.", { bad: true })
		show()
	})
	changed.on(title)
	left.on(title)
	ended.on(prediction => {
		if (!document.hidden) return
		done += 1
		title()
		if (wanted() && prediction.status !== "canceled") tell(prediction)
	})
	document.addEventListener("visibilitychange", () => {
		if (!document.hidden) done = 0
		title()
	})
}

const wanted = () =>
	"Notification" in window && Notification.permission === "granted" && localStorage.getItem(PLACE) === "yes"

function tell(prediction) {
	const head = prediction.status === "succeeded" ? "Your panorama is done" : "Your panorama failed"
	try {
		const note = new Notification(head, {
			body: prediction.status === "succeeded" ? prediction.input.prompt : prediction.error,
			tag: prediction.id,
		})
		note.onclick = () => (window.focus(), (location.hash = encodeURIComponent(prediction.id)), note.close())
	} catch {
		// Phones have notifications of service workers only.
	}
}

function title() {
	const running = [...jobs.values()].filter(job => job.phase === "running" && job.progress !== null)
	const state =
		running.length > 0
			? `${Math.floor(100 * Math.max(...running.map(job => job.progress ?? 0)))} %`
			: done > 0
				? "✓"
				: jobs.size > 0
					? "…"
					: ""
	const text = state ? `${state} · ${TITLE}` : TITLE
	if (document.title !== text) document.title = text
}
