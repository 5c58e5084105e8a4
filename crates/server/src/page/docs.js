"use strict";
const cell = (row, text, code) => {
  const place = row.insertCell();
  const inner = code ? place.appendChild(document.createElement("code")) : place;
  inner.textContent = text;
  return place;
};
fetch("openapi.json")
  .then(answer => answer.json())
  .then(api => {
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        const row = endpoints.insertRow();
        cell(row, method).className = "method";
        cell(row, path, true);
        cell(row, operation.description);
        cell(row, Object.keys(operation.responses).join(" "));
      }
    }
    const fields = Object.entries(api.components.schemas.Input.properties).sort(
      (a, b) => a[1]["x-order"] - b[1]["x-order"],
    );
    for (const [name, field] of fields) {
      const row = input.insertRow();
      const bounds =
        "maximum" in field
          ? ` ${field.minimum} to ${field.maximum}`
          : "minimum" in field
            ? ` from ${field.minimum}`
            : "";
      cell(row, name, true);
      cell(row, field.type + bounds);
      cell(row, "default" in field ? JSON.stringify(field.default) : "required");
      cell(row, field.description);
    }
  });
