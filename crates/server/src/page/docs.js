// The reference of the API, made from the OpenAPI document of the server.

import { parse, token } from "./api.js"
import { $, el, put, tool } from "./dom.js"
import { load } from "./schema.js"

/** Paths by subject: the first that fits. @type {[string, RegExp][]} */
const SUBJECTS = [
	["Predictions", /^\/predictions/],
	["Pictures", /^\/(files|view)/],
	["Other APIs", /^\/(v1|sdapi)/],
	["The server", /^\/(health|ready|live|metrics|shutdown)/],
	["Pages", /./],
]

/** @type {any} */
let api

/** What a reference refers to. @param {any} schema @returns {any} */
function resolved(schema) {
	const [name] = [schema?.$ref ?? schema?.allOf?.[0]?.$ref]
	return name
		? name
				.slice(2)
				.split("/")
				.reduce((at, key) => at[key], api)
		: (schema ?? {})
}

/** The name of a schema. @param {any} schema @returns {string} */
const named = schema =>
	(schema?.$ref ?? schema?.allOf?.[0]?.$ref)?.split("/").at(-1) ??
	(schema?.type === "array" ? `list of ${named(schema.items)}` : (schema?.type ?? "anything"))

/** An example of a schema. @param {any} schema @returns {any} */
function example(schema, depth = 0) {
	const is = resolved(schema)
	if (is.example !== undefined) return is.example
	if (is.default !== undefined) return is.default
	if (is.enum) return is.enum[0]
	if (depth > 4) return null
	if (is.anyOf || is.oneOf) return example((is.anyOf ?? is.oneOf)[0], depth + 1)
	if (is.type === "array") return [example(is.items, depth + 1)]
	if (is.type === "object")
		return Object.fromEntries(Object.entries(is.properties ?? {}).map(([name, of]) => [name, example(of, depth + 1)]))
	return (
		{
			string:
				is.format === "uri"
					? "https://example.com/"
					: is.format === "date-time"
						? "2026-01-31T12:00:00.000000+00:00"
						: "text",
			integer: is.minimum ?? 0,
			number: is.minimum ?? 0,
			boolean: false,
		}[/** @type {"string"} */ (is.type)] ?? null
	)
}

/** A schema as a table. @param {any} schema */
function table(schema) {
	const is = resolved(schema)
	const rows = Object.entries(is.properties ?? {}).sort(
		(a, b) => /** @type {any} */ (a[1]["x-order"] ?? 0) - /** @type {any} */ (b[1]["x-order"] ?? 0),
	)
	if (rows.length === 0) return null
	return grid(
		["name", "type", "default", "meaning"],
		rows.map(([name, of]) => {
			const field = /** @type {any} */ (of)
			const bounds =
				field.maximum !== undefined
					? `, ${field.minimum} to ${field.maximum}`
					: field.minimum !== undefined
						? `, from ${field.minimum}`
						: ""
			const words = field.enum ? field.enum.map(word => JSON.stringify(word)).join(" or ") : `${named(field)}${bounds}`
			const usual =
				field.default !== undefined ? JSON.stringify(field.default) : is.required?.includes(name) ? "required" : ""
			return [
				el("code", {}, name),
				words,
				usual && el("code", {}, usual),
				field.description ?? resolved(field).description ?? "",
			]
		}),
	)
}

function grid(head, rows) {
	return el(
		"div",
		{ class: "scroll", tabIndex: 0, role: "group", "aria-label": "Table" },
		el(
			"table",
			{},
			el("thead", {}, el("tr", {}, ...head.map(text => el("th", { scope: "col" }, text)))),
			el("tbody", {}, ...rows.map(row => el("tr", {}, ...row.map(cell => el("td", {}, cell))))),
		),
	)
}

const jsonOf = content => content?.["application/json"]?.schema

/** One operation. */
function section(path, method, operation) {
	const body = jsonOf(operation.requestBody?.content)
	const parameters = operation.parameters ?? []
	return el(
		"section",
		{ id: operation.operationId, class: "operation" },
		el("h3", {}, el("span", { class: `method ${method}` }, method.toUpperCase()), " ", el("code", {}, path)),
		el(
			"p",
			{},
			operation.description ?? operation.summary,
			operation.security && ". Needs a token, if the server has any",
		),
		parameters.length > 0 && el("h4", {}, "Parameters"),
		parameters.length > 0 &&
			grid(
				["name", "where", "meaning"],
				parameters.map(one => [
					el("code", {}, one.name),
					one.required ? `${one.in}, required` : one.in,
					one.description ?? words(one.schema),
				]),
			),
		body && el("h4", {}, "Body"),
		body && table(body),
		body && resolved(body).properties?.input && el("h4", {}, el("code", {}, "input")),
		body && resolved(body).properties?.input && table(resolved(body).properties.input),
		el("h4", {}, "Answers"),
		...Object.entries(operation.responses).map(([status, answer]) => response(status, answer)),
		path === "/shutdown" ? null : attempt(path, method, parameters, body),
	)
}

const words = schema =>
	[schema?.enum?.join(", "), schema?.minimum !== undefined && `${schema.minimum} to ${schema.maximum ?? "…"}`]
		.filter(Boolean)
		.join("; ")

function response(status, answer) {
	const schema = jsonOf(answer.content)
	const kinds = Object.keys(answer.content ?? {}).join(", ")
	const line = [el("b", {}, status), ` ${answer.description}`, kinds && el("span", { class: "about" }, ` ${kinds}`)]
	if (!schema || Object.keys(schema).length === 0) return el("p", { class: "answer" }, ...line)
	return el(
		"details",
		{ class: "answer" },
		el("summary", {}, ...line),
		el(
			"pre",
			{ tabIndex: 0, role: "group", "aria-label": `Example of ${status}` },
			JSON.stringify(example(schema), null, 2),
		),
	)
}

/** A form that sends a request. */
function attempt(path, method, parameters, body) {
	const id = `${method}${path}`.replace(/\W+/g, "-")
	const entries = parameters.map(one => {
		const entry = el("input", { id: `${id}-${one.name}`, placeholder: one.required ? "required" : "" })
		return { ...one, entry, node: el("label", { htmlFor: entry.id }, one.name, entry) }
	})
	const minimal = resolved(body).properties?.input
		? {
				input: {
					prompt: "a photo of a mountain range at twilight",
					...("preset" in resolved(resolved(body).properties.input).properties ? { preset: "fast" } : {}),
				},
			}
		: null
	const text =
		body &&
		el("textarea", {
			id: `${id}-body`,
			rows: 5,
			spellcheck: false,
			value: JSON.stringify(minimal ?? example(body), null, 2),
		})
	const result = el("div", { class: "result", role: "status" })
	const send = async () => {
		put(result, "Sending …")
		let url = path
			.slice(1)
			.replace(/\{(\w+)\}/g, (_, name) =>
				encodeURIComponent(entries.find(one => one.name === name)?.entry.value || "missing"),
			)
		const query = new URLSearchParams(
			entries.filter(one => one.in === "query" && one.entry.value).map(one => [one.name, one.entry.value]),
		)
		if (query.size) url += `?${query}`
		/** @type {Record<string, string>} */
		const headers = {}
		if (token.value) headers.authorization = `Bearer ${token.value}`
		if (body) headers["content-type"] = "application/json"
		for (const one of entries) if (one.in === "header" && one.entry.value) headers[one.name] = one.entry.value
		const began = performance.now()
		try {
			const answer = await fetch(url || ".", { method: method.toUpperCase(), headers, body: text?.value })
			const kind = answer.headers.get("content-type") ?? ""
			const head = `${answer.status} ${answer.statusText}, ${Math.round(performance.now() - began)} ms${kind ? `, ${kind}` : ""}`
			put(result, el("p", {}, el("b", {}, head)), await shown(answer, kind))
		} catch (error) {
			put(result, el("p", { class: "reason" }, `No answer: ${/** @type {Error} */ (error).message}`))
		}
	}
	return el(
		"details",
		{ class: "try" },
		el("summary", {}, "Try it"),
		el(
			"form",
			{ on: { submit: event => (event.preventDefault(), send()) } },
			...entries.map(one => one.node),
			text && el("label", { htmlFor: text.id }, "Body", text),
			tool("right", "Send", () => {}, { type: "submit", class: "tool main" }),
		),
		result,
	)
}

/** What came back: a picture, or text that is not endless. */
async function shown(answer, kind) {
	if (kind.startsWith("image/"))
		return el("img", { src: URL.createObjectURL(await answer.blob()), alt: "The picture that came back" })
	const text = await answer.text()
	if (!text) return null
	let pretty = text
	try {
		pretty = JSON.stringify(
			parse(text),
			(_, value) =>
				typeof value === "string" && value.length > 2000
					? `${value.slice(0, 100)} … (${value.length} characters)`
					: value,
			2,
		)
	} catch {
		// It is not JSON.
	}
	return el("pre", { tabIndex: 0, role: "group", "aria-label": "Answer" }, pretty.slice(0, 50_000))
}

/** The field for a token, which all tries use. */
function access() {
	const entry = el("input", { id: "token", type: "password", autocomplete: "current-password", value: token.value })
	entry.addEventListener("input", () => {
		token.value = entry.value.trim()
		sessionStorage.setItem("token", token.value)
	})
	return el(
		"details",
		{ class: "try", open: token.value !== "" },
		el("summary", {}, "Token"),
		el(
			"form",
			{ on: { submit: event => event.preventDefault() } },
			el("input", { type: "text", autocomplete: "username", value: "token", hidden: true }),
			el("label", { htmlFor: "token" }, "It is sent as a Bearer token and kept until this tab is closed", entry),
		),
	)
}

async function start() {
	try {
		api = (await load()).document
	} catch (error) {
		$("say").textContent = `The OpenAPI document cannot be read: ${/** @type {Error} */ (error).message}`
		return
	}
	/** @type {[string, [string, string, any][]][]} */
	const subjects = SUBJECTS.map(([title]) => [title, []])
	for (const [path, methods] of Object.entries(api.paths))
		for (const [method, operation] of Object.entries(/** @type {any} */ (methods))) {
			const at = SUBJECTS.findIndex(([, fits]) => fits.test(path))
			subjects[at][1].push([path, method, operation])
		}
	const filled = subjects.filter(([, operations]) => operations.length > 0)
	put(
		$("contents"),
		...filled.map(([title, operations]) =>
			el(
				"div",
				{},
				el("b", {}, title),
				el(
					"ul",
					{},
					...operations.map(([path, method, { operationId }]) =>
						el(
							"li",
							{},
							el(
								"a",
								{ href: `#${operationId}` },
								el("span", { class: `method ${method}` }, method.toUpperCase()),
								` ${path}`,
							),
						),
					),
				),
			),
		),
	)
	put(
		$("reference"),
		el("p", {}, api.info.description),
		access(),
		...filled.flatMap(([title, operations]) => [el("h2", {}, title), ...operations.map(one => section(...one))]),
	)
	document.getElementById(location.hash.slice(1))?.scrollIntoView()
	document.documentElement.dataset.ready = "true"
}

start()
