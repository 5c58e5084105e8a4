// The state of the server in words: what it does, what is wrong, and what to do.

import { ask, reached } from "./api.js"
import { $, el, put } from "./dom.js"
import { hasten, jobs, tend } from "./jobs.js"
import { toast } from "./toast.js"

/** Milliseconds between two looks, while all is well and while it is not. */
const [CALM, EAGER] = [5000, 1500]

/** @type {Record<string, [kind: string, word: string, more: string]>} */
const STATES = {
	READY: ["well", "Ready", "A picture would be drawn at once."],
	BUSY: ["well", "Busy", "All workers draw. What you send now waits for its turn, if the queue has room."],
	STARTING: [
		"wait",
		"Loading the model",
		"Pictures can be drawn as soon as the model is loaded. What you send now is sent again until then.",
	],
	SETUP_FAILED: [
		"ill",
		"The model cannot be loaded",
		"The log below says why. Correct it and restart the server; `syncdiffusion doctor` checks the machine.",
	],
	UNHEALTHY: ["ill", "In trouble", "The server tries to recover by itself."],
	DEFUNCT: ["ill", "No worker is left", "Nothing can be drawn until the server is restarted."],
}

let lost = false

export async function start() {
	reached.watch(here => here || gone())
	for (;;) {
		const wait = await look()
		await new Promise(done => setTimeout(done, wait))
	}
}

async function look() {
	let now
	try {
		now = await (await ask("health-check", { patient: false })).json()
	} catch {
		gone()
		return EAGER
	}
	if (lost) {
		lost = false
		toast("The server is back.")
		hasten()
		tend()
	}
	const [kind, word, more] = STATES[now.status] ?? ["wait", now.status, ""]
	const waiting = [...jobs.values()].filter(job => job.phase !== "running").length
	const trouble = now.user_healthcheck_error ?? ""
	const about = /disk|space|written/.test(trouble)
		? "The disk cannot be written. New pictures are refused until it has room; nothing that was accepted is lost."
		: more
	show(
		kind,
		now.status === "BUSY" && waiting > 0
			? `Busy, ${waiting} waiting`
			: now.status === "UNHEALTHY" && about !== more
				? "The disk cannot be written"
				: word,
		about,
		trouble,
		now,
	)
	return now.status === "READY" && jobs.size === 0 ? CALM : EAGER
}

function gone() {
	if (!lost) {
		lost = true
		show(
			"ill",
			"The server cannot be reached",
			"Is it still running? What you typed stays here, and what was accepted goes on when it is back.",
			"",
			null,
		)
	}
}

let seen = ""

function show(kind, word, more, trouble, now) {
	const key = JSON.stringify([kind, word, trouble, now?.setup?.logs?.length])
	if (key === seen) return
	seen = key
	const status = $("status")
	status.dataset.kind = kind
	put($("status-word"), word)
	const device = /device=(\S+)|\bon (cpu|cuda\S*)/.exec(now?.setup?.logs ?? "")
	const on = ["READY", "BUSY"].includes(now?.status) && (device?.[1] ?? device?.[2])
	put(
		$("status-more"),
		el("p", {}, more),
		trouble &&
			el(
				"p",
				{ class: "reason" },
				trouble.replace(/^./, first => first.toUpperCase()),
				".",
			),
		on &&
			el(
				"p",
				{},
				on.startsWith("cpu")
					? "It draws on the processor: there is no GPU, or it was told so. A picture takes minutes with a large model."
					: `It draws on ${on}.`,
			),
		now && el("p", { class: "about" }, `syncdiffusion ${now.version?.syncdiffusion ?? ""}`),
		now?.setup?.logs &&
			el(
				"details",
				{ open: kind === "ill" },
				el("summary", {}, "Log of the start"),
				el("pre", { class: "logs", tabIndex: 0, role: "group", "aria-label": "Log of the start" }, now.setup.logs),
			),
	)
}
