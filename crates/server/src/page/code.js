// The same picture by other means: always what the form says now.

import { json, token } from "./api.js"
import { $, el, put, tool } from "./dom.js"
import { read, toJson, typed } from "./form.js"
import { toast } from "./toast.js"

const shell = text => (/^[\w./:=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`)
const python = json => ({ true: "True", false: "False", null: "None" })[json] ?? json
const lines = (entries, /** @type {(entry: [string, string]) => string} */ line, indent) =>
	entries.map(entry => `${indent}${line(entry)},\n`).join("")
const dict = (/** @type {Told} */ { entries }, indent = "    ") =>
	`{\n${lines(entries, ([name, json]) => `${JSON.stringify(name)}: ${python(json)}`, `${indent}    `)}${indent}}`

const secret = told => (told.token ? 'os.environ["TOKEN"]' : '"none"')

/** @type {{ name: string, needs?: string, write: (told: Told) => string }[]} */
export const WAYS = [
	{
		name: "curl",
		write: ({ entries, base, token }) =>
			`curl -s ${base}/predictions \\\n${token ? '  -H "authorization: Bearer $TOKEN" \\\n' : ""}  -H 'content-type: application/json' \\\n  -d ${shell(`{"input":${toJson(entries)}}`)}`,
	},
	{
		name: "Python",
		write: told => {
			const { base, token } = told
			const headers = token ? ", headers=headers" : ""
			return [
				...(token ? ["import os", ""] : []),
				"import requests",
				"",
				...(token ? [`headers = {"authorization": f"Bearer {os.environ['TOKEN']}"}`] : []),
				`url = "${base}/predictions"`,
				`made = requests.post(url${headers}, json={"input": ${dict(told, "")}}).json()`,
				'assert made["status"] == "succeeded", made',
				`picture = requests.get(f"{url}/{made['id']}/output"${headers})`,
				`open("panorama.${told.end}", "wb").write(picture.content)`,
			].join("\n")
		},
	},
	{
		name: "JavaScript",
		write: told => {
			const header = told.token ? ", authorization: `Bearer ${process.env.TOKEN}`" : ""
			return [
				'import { writeFile } from "node:fs/promises";',
				"",
				`const url = "${told.base}/predictions";`,
				`const headers = { "content-type": "application/json"${header} };`,
				"const input = {",
				...told.entries.map(([name, json]) => `  ${name}: ${safe(json)},`),
				"};",
				'const made = await (await fetch(url, { method: "POST", headers, body: JSON.stringify({ input }) })).json();',
				'if (made.status !== "succeeded") throw new Error(JSON.stringify(made));',
				"const picture = await fetch(`${url}/${made.id}/output`, { headers });",
				`await writeFile("panorama.${told.end}", Buffer.from(await picture.arrayBuffer()));`,
			].join("\n")
		},
	},
	{
		name: "Replicate",
		needs: "/v1/predictions",
		write: told =>
			[
				'# pip install "replicate<2"',
				...(told.token ? ["import os", ""] : []),
				"from replicate.client import Client",
				"",
				`client = Client(api_token=${secret(told)}, base_url="${told.base}")`,
				`output = client.run("${told.model}", input=${dict(told, "")})`,
				`open("panorama.${told.end}", "wb").write(output.read())`,
			].join("\n"),
	},
	{
		name: "OpenAI",
		needs: "/v1/images/generations",
		write: told => {
			const of = name => told.entries.find(([known]) => known === name)?.[1]
			const rest = told.entries.filter(([name]) => !["prompt", "width", "height"].includes(name))
			const size = of("width") || of("height") ? `${of("width") ?? 2048}x${of("height") ?? 512}` : "auto"
			return [
				"# pip install openai",
				"import base64",
				...(told.token ? ["import os"] : []),
				"",
				"from openai import OpenAI",
				"",
				`client = OpenAI(api_key=${secret(told)}, base_url="${told.base}/v1")`,
				"made = client.images.generate(",
				`    prompt=${of("prompt") ?? '""'},`,
				`    size="${size}",`,
				'    response_format="b64_json",',
				...(rest.length > 0 ? [`    extra_body=${dict({ ...told, entries: rest })},`] : []),
				")",
				`open("panorama.${told.end}", "wb").write(base64.b64decode(made.data[0].b64_json))`,
			].join("\n")
		},
	},
	{
		name: "Command line",
		write: ({ entries, end }) =>
			`syncdiffusion generate \\\n${entries.map(([name, json]) => `  --${name.replaceAll("_", "-")} ${shell(json.startsWith('"') ? JSON.parse(json) : json)} \\\n`).join("")}  --output panorama.${end}`,
	},
]

/** A whole number that a double cannot hold is written so that JSON has it nevertheless. */
const safe = json => (/^\d{16,}$/.test(json) && !Number.isSafeInteger(Number(json)) ? `JSON.rawJSON("${json}")` : json)

/** @param {Schema} schema */
export function start(schema) {
	const ways = WAYS.filter(({ needs }) => !needs || needs in schema.paths)
	let chosen = ways[0]
	// Its usual name, until the server says another one.
	let model = "syncdiffusion/panorama"
	const text = el("pre", { id: "code-text", tabIndex: 0, role: "tabpanel", "aria-labelledby": "tab-0" })
	const draw = () => {
		const base = new URL(".", document.baseURI).href.replace(/\/$/, "")
		const entries = shorter(read())
		const format = JSON.parse(entries.find(([name]) => name === "output_format")?.[1] ?? '"png"')
		const end = format === "jpeg" ? "jpg" : format
		text.textContent = chosen.write({ entries, base, end, token: token.value !== "", model })
	}
	const tabs = el("div", { class: "tabs", role: "tablist", "aria-label": "Ways to draw the same picture" })
	const choose = (at, focus = false) => {
		chosen = ways[at]
		for (const [index, tab] of [...tabs.children].entries()) {
			tab.setAttribute("aria-selected", String(index === at))
			tab.tabIndex = index === at ? 0 : -1
		}
		text.setAttribute("aria-labelledby", `tab-${at}`)
		if (focus) tabs.children[at].focus()
		draw()
	}
	for (const [at, { name }] of ways.entries())
		tabs.append(
			el(
				"button",
				{ type: "button", role: "tab", id: `tab-${at}`, "aria-controls": "code-text", on: { click: () => choose(at) } },
				name,
			),
		)
	tabs.addEventListener("keydown", event => {
		const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
		if (by) choose((ways.indexOf(chosen) + by + ways.length) % ways.length, true)
	})
	const copy = tool("copy", "Copy", () =>
		navigator.clipboard?.writeText(text.textContent).then(
			() => toast("The code is in the clipboard."),
			() => toast("It cannot be copied here; select it instead.", { bad: true }),
		),
	)
	copy.hidden = !navigator.clipboard
	put($("code"), tabs, text, copy)
	choose(0)
	typed.on(draw)
	token.watch(draw)
	if ("/v1/predictions" in schema.paths)
		json("v1/models").then(
			({ results: [{ owner, name }] }) => {
				model = `${owner}/${name}`
				draw()
			},
			() => {},
		)
}

/** Pictures are long as text. */
const shorter = entries =>
	entries.map(
		([name, json]) => /** @type {[string, string]} */ ([name, json.length > 2000 ? `${json.slice(0, 60)}…"` : json]),
	)
