// The same picture by other means: always what the form says now.

import { token } from "./api.js"
import { $, el, put, tool } from "./dom.js"
import { read, toJson, typed } from "./form.js"
import { toast } from "./toast.js"

const shell = text => (/^[\w./:=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`)
const python = json => ({ true: "True", false: "False", null: "None" })[json] ?? json
const lines = (entries, /** @type {(entry: [string, string]) => string} */ line, indent) =>
	entries.map(entry => `${indent}${line(entry)},\n`).join("")
const dict = (/** @type {Told} */ { entries }, indent = "    ") =>
	`{\n${lines(entries, ([name, json]) => `${JSON.stringify(name)}: ${python(json)}`, `${indent}    `)}${indent}}`

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
			const headers = told.token ? `\n    headers={"authorization": f"Bearer {os.environ['TOKEN']}"},` : ""
			return `import base64${told.token ? "\nimport os" : ""}\n\nimport requests\n\nmade = requests.post(\n    "${told.base}/predictions",${headers}\n    json={"input": ${dict(told)}},\n).json()\nassert made["status"] == "succeeded", made\npicture = made["output"].split(",")[1]\nopen("panorama.png", "wb").write(base64.b64decode(picture))`
		},
	},
	{
		name: "JavaScript",
		write: told => {
			const header = told.token ? `\n    authorization: "Bearer " + process.env.TOKEN,` : ""
			return `import { writeFile } from "node:fs/promises";\n\nconst answer = await fetch("${told.base}/predictions", {\n  method: "POST",\n  headers: {\n    "content-type": "application/json",${header}\n  },\n  body: JSON.stringify({\n    input: {\n${lines(told.entries, ([name, json]) => `${name}: ${safe(json)}`, "      ")}    },\n  }),\n});\nconst made = await answer.json();\nif (made.status !== "succeeded") throw new Error(JSON.stringify(made));\nconst picture = await fetch(made.output);\nawait writeFile("panorama.png", Buffer.from(await picture.arrayBuffer()));`
		},
	},
	{
		name: "Replicate",
		needs: "/v1/predictions",
		write: told =>
			`# pip install replicate\nfrom replicate.client import Client\n\nclient = Client(api_token=${told.token ? 'os.environ["TOKEN"]' : '"none"'}, base_url="${told.base}")\noutput = client.run(\n    "${told.model}",\n    input=${dict(told)},\n)\nopen("panorama.png", "wb").write(output.read())`.replace(
				"from replicate",
				told.token ? "import os\n\nfrom replicate" : "from replicate",
			),
	},
	{
		name: "OpenAI",
		needs: "/v1/images/generations",
		write: told => {
			const of = name => told.entries.find(([known]) => known === name)?.[1]
			const rest = told.entries.filter(([name]) => !["prompt", "width", "height"].includes(name))
			const size = of("width") || of("height") ? `${of("width") ?? 2048}x${of("height") ?? 512}` : "auto"
			const more = rest.length ? `\n    extra_body=${dict({ ...told, entries: rest })},` : ""
			return `# pip install openai\nimport base64\n${told.token ? "import os\n" : ""}\nfrom openai import OpenAI\n\nclient = OpenAI(api_key=${told.token ? 'os.environ["TOKEN"]' : '"none"'}, base_url="${told.base}/v1")\nmade = client.images.generate(\n    prompt=${of("prompt") ?? '""'},\n    size="${size}",${more}\n)\nopen("panorama.png", "wb").write(base64.b64decode(made.data[0].b64_json))`
		},
	},
	{
		name: "Command line",
		write: ({ entries }) =>
			`syncdiffusion generate \\\n${entries.map(([name, json]) => `  --${name.replaceAll("_", "-")} ${shell(json.startsWith('"') ? JSON.parse(json) : json)} \\\n`).join("")}  --out panorama.png`,
	},
]

/** A whole number that a double cannot hold is written so that JSON has it nevertheless. */
const safe = json => (/^\d{16,}$/.test(json) && !Number.isSafeInteger(Number(json)) ? `JSON.rawJSON("${json}")` : json)

/** @param {Schema} schema */
export function start(schema) {
	const ways = WAYS.filter(({ needs }) => !needs || needs in schema.paths)
	let chosen = ways[0]
	const text = el("pre", { id: "code-text", tabIndex: 0, role: "tabpanel", "aria-labelledby": "tab-0" })
	const draw = () => {
		const base = new URL(".", document.baseURI).href.replace(/\/$/, "")
		text.textContent = chosen.write({
			entries: shorter(read()),
			base,
			host: location.host,
			token: token.value !== "",
			model: model(schema),
		})
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
}

/** Pictures are long as text. */
const shorter = entries =>
	entries.map(
		([name, json]) => /** @type {[string, string]} */ ([name, json.length > 2000 ? `${json.slice(0, 60)}…"` : json]),
	)

/** The name of the model for Replicate's client. */
const model = (/** @type {Schema} */ schema) => schema.document.info["x-model"] ?? "syncdiffusion/syncdiffusion"
