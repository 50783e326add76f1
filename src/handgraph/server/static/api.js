// The schema of the HTTP interface, readable.

const element = (name, text = "", children = []) => {
  const made = document.createElement(name);
  made.append(text, ...children);
  return made;
};

function table(head, rows) {
  const made = element("table"), body = element("tbody");
  made.append(element("thead", "", [element("tr", "", head.map(text => element("th", text)))]), body);
  for (const row of rows) body.append(element("tr", "", row.map(cell => element("td", "", [cell]))));
  const wide = element("div", "", [made]);
  wide.className = "wide";
  return wide;
}

function kind(schema) {
  if (schema.type === "array") return `several: ${kind(schema.items)}`;
  if (schema.format === "binary") return "file";
  if (schema.enum) return schema.enum.join(" | ");
  return schema.pattern ? "a,b,c,d" : schema.type ?? "";
}

function section(path, verb, operation) {
  const badge = element("span", verb.toUpperCase());
  badge.className = "verb";
  const made = element("section", "", [element("h2", "", [badge, element("code", path)]), element("p", operation.summary)]);
  made.className = "card";
  const form = operation.requestBody?.content["multipart/form-data"].schema;
  if (form) {
    made.append(element("h3", operation.parameters ? "Fields of the form, or settings in the address" : "Fields of the form"));
    made.append(table(["field", "kind", "what it is"], Object.entries(form.properties).map(([name, schema]) => [
      element("code", name + (form.required.includes(name) ? " *" : "")), kind(schema), schema.description ?? schema.items.description,
    ])));
  }
  made.append(element("h3", "Answers"));
  made.append(table(["status", "what it means"], Object.entries(operation.responses).map(([status, { description }]) => [status, description])));
  return made;
}

const schema = await (await fetch("/openapi.json")).json();
document.getElementById("about").textContent = schema.info.description.replaceAll("`", "");
document.getElementById("example").textContent =
  `curl --data-binary @frame.png '${location.origin}/api/predict?camera=588,587,320,240'\n` +
  `curl -F file=@photo.jpg -F side=left -F format=coco ${location.origin}/api/predict -o hands.json\n` +
  `curl -F files=@a.png -F files=@b.png -F files=@c.png ${location.origin}/api/personalize`;
for (const [path, verbs] of Object.entries(schema.paths)) {
  for (const [verb, operation] of Object.entries(verbs)) document.getElementById("paths").append(section(path, verb, operation));
}
