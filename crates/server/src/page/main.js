// The playground: puts its parts together.

import { give, token, wanted } from "./api.js"
import * as code from "./code.js"
import { $, calm, el, put, tool } from "./dom.js"
import * as drop from "./drop.js"
import * as form from "./form.js"
import * as past from "./history.js"
import * as jobs from "./jobs.js"
import * as keys from "./keys.js"
import * as notify from "./notify.js"
import { thumbnails } from "./pictures.js"
import * as queue from "./queue.js"
import * as schemas from "./schema.js"
import * as stage from "./stage.js"
import * as status from "./status.js"
import { toast } from "./toast.js"
import * as welcome from "./welcome.js"

/** @type {Schema} */
let schema

async function start() {
	access()
	status.start()
	notify.start()
	for (let wait = 500; !schema; wait = Math.min(wait * 2, 5000)) {
		try {
			schema = await schemas.load()
		} catch {
			await new Promise(done => setTimeout(done, wait))
		}
	}
	form.build(schema)
	thumbnails(schemas.takes(schema, "predictions/{prediction_id}/output", "width"))
	stage.start("/view/{prediction_id}" in schema.paths)
	queue.start()
	welcome.start()
	code.start(schema)
	drop.start(schema)
	keys.start({ draw: submit, stop })
	$("form").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
		event.preventDefault()
		submit()
		// On a narrow page the picture is below the form.
		if (jobs.jobs.size > 0 && matchMedia("(max-width: 60rem)").matches)
			$("stage").scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" })
	})
	$("go").disabled = false
	stage.again.on(input => drawAgain(input))
	welcome.example.on(input => drawExample(input))
	jobs.refused.on(({ job, why }) => refuse(job, why))
	jobs.ended.on(prediction => finish(prediction))
	const first = location.hash.slice(1)
	past.start(schema, newest => {
		if (first || stage.shown.value || jobs.jobs.size > 0) return
		const picture = newest.find(one => one.status === "succeeded")
		if (picture) stage.show(picture)
		else if (newest.length === 0) welcome.show()
	})
	if (first) open(first)
	addEventListener("hashchange", () => location.hash.length > 1 && open(location.hash.slice(1)))
	document.documentElement.dataset.ready = "true"
}

/** Draws what the form says. */
function submit() {
	form.flag([])
	$("form-say").textContent = ""
	if (form.isEmpty()) {
		$("form-say").textContent = "Describe what you want to see first."
		$("prompt").focus()
		return
	}
	const made = form.pictures().map(entries => {
		const input = form.toJson(entries)
		return jobs.draw(input, look(input))
	})
	const busy = jobs.jobs.get(stage.shown.value)
	if (!busy && made[0]) stage.watch(made[0])
	$("spoken").textContent = made.length === 1 ? "The picture was sent." : `${made.length} pictures were sent.`
}

/** An input as an object, with the size that the server would take. @param {string} input */
function look(input) {
	const size = Object.fromEntries(
		schema.fields.filter(({ name }) => name === "width" || name === "height").map(field => [field.name, field.default]),
	)
	return { ...size, ...JSON.parse(input.replace(/"seed":(\d{16,})/, '"seed":"$1"')) }
}

/** Draws the inputs of another prediction once more. @param {any} input */
function drawAgain(input) {
	const json = JSON.stringify(input).replace(/"seed":"(\d+)"/, '"seed":$1')
	stage.watch(jobs.draw(json, input))
}

function drawExample(wanted) {
	const input = Object.fromEntries(
		Object.entries(wanted).filter(([name]) => schema.fields.some(field => field.name === name)),
	)
	if (form.isEmpty()) form.fill(input)
	stage.watch(jobs.draw(JSON.stringify(input), look(JSON.stringify(input)), true))
}

function refuse(/** @type {Job} */ job, /** @type {import("./api.js").Refused} */ why) {
	if (stage.shown.value === job.id) stage.clear()
	const rest = form.flag(why.details)
	const text =
		why.details.length === 0
			? `It was refused: ${why.message}.`
			: rest.length
				? `It was refused: ${rest.join("; ")}.`
				: "Some values do not work; see what is marked."
	$("form-say").textContent = text
}

/** Shows the end of what is looked at. */
function finish(prediction) {
	if (stage.shown.value === prediction.id) stage.show(prediction)
	if (prediction.status === "failed" && stage.shown.value !== prediction.id)
		toast(`A picture failed: ${prediction.error}.`, { bad: true, seconds: 12 })
	$("spoken").textContent = {
		succeeded: "A picture is done.",
		failed: `A picture failed: ${prediction.error}`,
		canceled: "A picture was stopped.",
	}[/** @type {"failed"} */ (prediction.status)]
}

/** Stops what is looked at, or what was asked for last. */
function stop() {
	const job = jobs.jobs.get(stage.shown.value) ?? [...jobs.jobs.values()].at(-1)
	if (!job || job.ending) return
	jobs.cancel(job.id)
	toast("Stopped.", { action: "Draw it again", act: () => drawAgain(job.input) })
}

/** Shows the prediction that the address names. @param {string} hash */
async function open(hash) {
	let id = hash
	try {
		id = decodeURIComponent(hash)
	} catch {
		// It is then an id with a percent sign.
	}
	if (id === stage.shown.value) return
	const known = await stage.open(id)
	if (!known) {
		const lost = "The prediction of this address is not on the server. It was deleted, or is no longer kept."
		if (!jobs.jobs.has(id)) put($("stage-say"), el("p", { class: "reason" }, lost))
		return
	}
	if (known.completed_at) stage.show(known)
	else {
		jobs.adopt(known)
		const job = jobs.jobs.get(id)
		if (job) stage.watch(job)
	}
	if (form.isEmpty()) form.fill(known.input)
}

/** The field for a token, which appears when a server asks for one. */
function access() {
	const entry = el("input", {
		type: "password",
		id: "token",
		autocomplete: "current-password",
		spellcheck: false,
		required: true,
		"aria-describedby": "token-say",
	})
	const box = el(
		"form",
		{
			class: "access",
			id: "access",
			hidden: true,
			on: { submit: event => (event.preventDefault(), give(entry.value)) },
		},
		// Browsers keep a password beside a name, and ask for one in the console otherwise.
		el("input", { type: "text", autocomplete: "username", value: "token", hidden: true }),
		el("label", { htmlFor: "token" }, "Token"),
		entry,
		tool("lock", "Use it", () => {}, { type: "submit", class: "tool main" }),
		el("p", { id: "token-say", role: "status" }),
		el("p", { class: "about" }, "It is kept until this tab is closed."),
	)
	$("top").after(box)
	wanted.watch(why => {
		const was = box.hidden
		box.hidden = why === ""
		$("token-say").textContent = why
		if (was && why) {
			entry.value = token.value
			entry.focus()
			entry.select()
		}
	})
}

start()
