"use strict";
const $ = id => document.getElementById(id);
const make = (tag, parent, text) => {
  const node = parent.appendChild(document.createElement(tag));
  if (text !== undefined) node.textContent = text;
  return node;
};
// The inputs of the schema in order, the prediction that is followed, and the URLs of the last picture.
let fields = [];
let running = null;
let held = [];

// Every request carries the token, if there is one. The field for it appears when a server asks for one.
const key = $("token");
key.value = sessionStorage.getItem("token") ?? "";
$("access").hidden = key.value === "";
key.addEventListener("change", () => {
  sessionStorage.setItem("token", key.value.trim());
  showCurl();
  if (!running) resume();
});
async function ask(path, options = {}) {
  const token = key.value.trim();
  const headers = { ...options.headers, ...(token && { authorization: "Bearer " + token }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    $("access").hidden = false;
    key.focus();
    $("say").textContent = (await answer.clone().json()).detail;
  }
  return answer;
}

// The form is built from the schema, so a new input appears by itself.
fetch("openapi.json")
  .then(answer => answer.json())
  .then(api => {
    fields = Object.entries(api.components.schemas.Input.properties).sort((a, b) => a[1]["x-order"] - b[1]["x-order"]);
    const first = ["prompt", "negative_prompt", "width", "height", "seed", "seamless"];
    for (const [name, field] of fields) {
      const label = make("label", $(first.includes(name) ? "first" : "more"));
      label.id = "of-" + name;
      const title = make("b", label, field.title);
      const entry = make(field.enum ? "select" : field.type === "string" ? "textarea" : "input", label);
      entry.name = name;
      if (field.enum) {
        // The first is to leave it out: what it is then may depend on other inputs.
        make("option", entry, `default (${field.default})`).value = "";
        for (const word of field.enum) make("option", entry, word);
      } else if (field.type === "boolean") {
        entry.type = "checkbox";
        entry.checked = field.default;
        label.insertBefore(entry, title);
        entry.after(" ");
      } else {
        entry.value = field.default ?? "";
        if (field.type !== "string") {
          entry.type = "number";
          entry.step = field.type === "integer" ? 1 : "any";
          if ("minimum" in field) entry.min = field.minimum;
          if ("maximum" in field) entry.max = field.maximum;
        }
      }
      const bounds = "maximum" in field ? ` (${field.minimum} to ${field.maximum})` : "";
      make("small", label, field.description + bounds);
    }
    $("form").elements.prompt.placeholder = "a photo of a mountain range at twilight";
    showCurl();
    resume();
  });

// A whole number is sent as it was typed: a seed may be larger than a double can hold.
function body() {
  const parts = [];
  for (const [name, field] of fields) {
    const entry = $("form").elements[name];
    if (field.type === "boolean") {
      if (entry.checked !== field.default) parts.push([name, String(entry.checked)]);
      continue;
    }
    const text = entry.value;
    if (field.type === "string") {
      if (text !== (field.enum ? "" : (field.default ?? ""))) parts.push([name, JSON.stringify(text)]);
      continue;
    }
    if (text.trim() !== "" && text !== String(field.default))
      parts.push([name, /^-?\d+$/.test(text) ? text.replace(/^(-?)0+(?=\d)/, "$1") : JSON.stringify(Number(text))]);
  }
  return `{"input":{${parts.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(",")}}}`;
}

function showCurl() {
  const token = key.value.trim() && ` -H "authorization: Bearer $TOKEN"`;
  $("curl").textContent =
    `curl -s ${new URL("predictions", document.baseURI).href}${token} -H 'content-type: application/json' -d '${body().replaceAll("'", "'\\''")}'`;
}
$("form").addEventListener("input", showCurl);

function flag(details) {
  for (const node of document.querySelectorAll(".wrong")) node.remove();
  for (const node of document.querySelectorAll(".flagged")) node.classList.remove("flagged");
  if (details.length) $("say").textContent = "The form has values that do not work.";
  for (const { loc, msg } of details) {
    const label = $("of-" + loc.at(-1));
    if (!label) {
      $("say").textContent = msg;
      continue;
    }
    label.classList.add("flagged");
    make("span", label, msg).className = "wrong";
    label.closest("details")?.setAttribute("open", "");
  }
  document.querySelector(".flagged :is(textarea, input, select)")?.focus();
}

$("form").addEventListener("submit", async event => {
  event.preventDefault();
  flag([]);
  const answer = await ask("predictions", {
    method: "POST",
    headers: { "content-type": "application/json", prefer: "respond-async" },
    body: body(),
  }).catch(() => null);
  if (!answer) {
    $("say").textContent = "The server cannot be reached.";
    return;
  }
  const reply = await answer.json();
  if (answer.status !== 202) {
    if (Array.isArray(reply.detail)) flag(reply.detail);
    else $("say").textContent = reply.error ?? reply.detail;
    return;
  }
  follow(reply);
});

// The id of the prediction is in the address, so that a reload follows it again.
function follow(prediction) {
  history.replaceState(null, "", "#" + encodeURIComponent(prediction.id));
  $("result").scrollIntoView({ block: "nearest", behavior: "smooth" });
  running = prediction;
  $("go").disabled = true;
  $("stop").disabled = false;
  $("logs").textContent = "";
  $("tools").textContent = "";
  $("bar").removeAttribute("value");
  $("say").textContent = "Waiting for its turn …";
  const path = "predictions/" + encodeURIComponent(prediction.id);
  listen(path, {
    start() {
      $("say").textContent = "Working …";
    },
    log(line) {
      $("logs").textContent += line.data;
    },
    progress(now) {
      $("bar").value = now.progress;
      const left = now.seconds_left === null ? "" : `, about ${Math.ceil(now.seconds_left)} s left`;
      $("say").textContent = `Step ${now.step} of ${now.steps}${left}`;
    },
    preview(now) {
      show(now.image, prediction.input);
    },
    completed(end) {
      finish(end, path);
    },
  });
}

// Follows the events of a prediction as EventSource does, which cannot send a token. Where there are no events to follow,
// asks for the end instead.
async function listen(path, on, last) {
  const answer = await ask(path + "/stream", { headers: { prefer: "preview", ...(last && { "last-event-id": last }) } }).catch(() => null);
  if (answer && answer.status !== 200) {
    end(path);
    return;
  }
  let text = "";
  try {
    for (const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
      const { value, done } = await reader.read();
      if (done) break;
      const frames = (text + value).split("\n\n");
      text = frames.pop();
      for (const frame of frames) {
        const of = name =>
          frame
            .split("\n")
            .filter(line => line.startsWith(name + ": "))
            .map(line => line.slice(name.length + 2))
            .join("\n");
        last = of("id") || last;
        if (of("event") === "error") {
          end(path);
          return;
        }
        on[of("event")]?.(JSON.parse(of("data")));
        if (of("event") === "completed") return;
      }
    }
  } catch {
    // The connection is closed, as it is after the last frame.
  }
  $("say").textContent = "The connection was lost; trying again …";
  setTimeout(listen, 2000, path, on, last);
}

async function end(path) {
  const answer = await ask(path).catch(() => null);
  const now = answer?.ok ? await answer.json() : null;
  if (["succeeded", "failed", "canceled"].includes(now?.status)) {
    finish(now, path);
    return;
  }
  if (answer?.status === 404) {
    finish({ status: "failed", error: "the server no longer knows this prediction", logs: "" }, path);
    return;
  }
  if (answer?.status !== 401) setTimeout(end, 1000, path);
}

function fill(input) {
  for (const [name, field] of fields) {
    const entry = $("form").elements[name];
    // An input after the thirteen is missing where all of them have their defaults.
    const value = input[name] ?? (field.enum ? "" : field.default);
    // A number that a double cannot hold would become another one.
    if (field.type === "boolean") entry.checked = value;
    else if (!Number.isInteger(value) || Number.isSafeInteger(value)) entry.value = value;
  }
  showCurl();
}

async function resume() {
  const answer =
    location.hash.length > 1 ? await ask("predictions/" + location.hash.slice(1)).catch(() => null) : null;
  if (answer?.ok) {
    const known = await answer.json();
    fill(known.input);
    if (known.completed_at) finish(known, "predictions/" + encodeURIComponent(known.id));
    else follow(known);
  }
}

async function finish(end, path) {
  running = null;
  $("go").disabled = false;
  $("stop").disabled = true;
  $("bar").value = end.status === "succeeded" ? 1 : 0;
  $("logs").textContent = end.logs;
  if (end.status !== "succeeded") {
    $("say").textContent = end.status === "canceled" ? "Stopped." : "It failed: " + end.error;
    return;
  }
  $("say").textContent =
    `${end.input.width} × ${end.input.height}, seed ${end.input.seed}, ${end.metrics.predict_time.toFixed(1)} s`;
  $("tools").textContent = "";
  const answer = await ask(path + "/output").catch(() => null);
  if (!answer?.ok) {
    if (answer?.status !== 401) $("say").textContent = "The picture cannot be fetched.";
    return;
  }
  for (const old of held) URL.revokeObjectURL(old);
  const picture = URL.createObjectURL(await answer.blob());
  const json = URL.createObjectURL(new Blob([JSON.stringify(end, null, 2)], { type: "application/json" }));
  held = [picture, json];
  show(picture, end.input);
  const save = make("a", $("tools"), "Save the picture");
  save.href = picture;
  save.download =
    (end.input.prompt
      .toLowerCase()
      .replace(/[^\p{L}\p{N}]+/gu, "-")
      .slice(0, 60) || "panorama") + `-${end.input.seed}.png`;
  make("a", $("tools"), "As JSON").href = json;
}

function show(picture, input) {
  shift = 0;
  const view = $("view");
  view.textContent = "";
  view.style.backgroundImage = `url("${picture}")`;
  view.ariaLabel = input.prompt;
  view.className = "picture" + (input.loop_closure || input.seamless ? " looped" : "") + (input.height > input.width ? " tall" : "");
  view.dataset.ratio = input.width / input.height;
  move(0);
}

// Dragging moves the picture; one with closed ends goes round and round.
let from = null;
let speed = 0;
let shift = 0;
function move(by) {
  const view = $("view");
  if (!movable()) {
    view.style.backgroundPosition = "";
    return;
  }
  shift += by;
  const room = view.clientWidth - view.clientHeight * view.dataset.ratio;
  if (!view.classList.contains("looped")) shift = room > 0 ? room / 2 : Math.min(0, Math.max(room, shift));
  view.style.backgroundPosition = `${shift}px 50%`;
}
addEventListener("resize", () => move(0));
$("view").addEventListener("keydown", event => {
  const by = { ArrowLeft: 80, ArrowRight: -80 }[event.key];
  if (by && movable()) {
    event.preventDefault();
    move(by);
  }
});
const movable = () => $("view").classList.contains("picture") && !$("view").classList.contains("tall");
$("view").addEventListener("pointerdown", event => {
  if (movable()) {
    from = event.clientX;
    speed = 0;
    $("view").setPointerCapture(event.pointerId);
  }
});
$("view").addEventListener("pointermove", event => {
  if (from !== null) {
    speed = event.clientX - from;
    move(speed);
    from = event.clientX;
  }
});
for (const name of ["pointerup", "pointercancel"])
  $("view").addEventListener(name, () => {
    if (from !== null) {
      from = null;
      glide();
    }
  });
function glide() {
  if (from === null && Math.abs(speed) > 0.4) {
    speed *= 0.94;
    move(speed);
    requestAnimationFrame(glide);
  }
}

$("stop").addEventListener("click", () => {
  if (running) ask("predictions/" + encodeURIComponent(running.id) + "/cancel", { method: "POST" });
});

async function health() {
  const now = await fetch("health-check")
    .then(answer => answer.json())
    .catch(() => ({ status: "GONE" }));
  $("health").textContent = now.status;
  $("health").title = now.user_healthcheck_error ?? "";
  $("health").className = { READY: "well", BUSY: "well", STARTING: "" }[now.status] ?? "ill";
  setTimeout(health, now.status === "READY" && !running ? 5000 : 1000);
}
health();
