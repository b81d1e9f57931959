// Settings of a restoration, as the service describes them. Only those that differ from its own are sent.
import { html } from "./kit.js";

export function Settings({ about, values, set }) {
  const change = (name, value, usual) => {
    const rest = { ...values };
    delete rest[name];
    set(value === "" || String(value) === String(usual) ? rest : { ...rest, [name]: value });
  };
  const preset = values.preset ?? about.default_preset;
  const chosen = about.presets.find((one) => one.name === preset);
  const changed = Object.keys(values).length;
  return html`<details class="settings">
    <summary>Settings${changed ? html` <span class="count">${changed} changed</span>` : ""}</summary>
    <div class="fields">
      <label>Preset
        <select value=${preset} onChange=${(event) => change("preset", event.currentTarget.value, about.default_preset)}>
          ${about.presets.map((one) => html`<option key=${one.name} value=${one.name} disabled=${!one.available}>${one.name}${one.available ? "" : " (not on this machine)"}</option>`)}
        </select>
        <span class="help">${chosen?.summary}</span>
      </label>
      ${about.settings.filter((one) => one.name !== "preset").map((one) => html`<${Field} key=${one.name} one=${one} value=${values[one.name]} change=${change} />`)}
    </div>
  </details>`;
}

function Field({ one, value, change }) {
  const { name, help, choices, minimum, maximum } = one;
  const usual = one.default;
  const title = name[0].toUpperCase() + name.slice(1).replace(/[_-]/g, " ");
  const number = typeof usual === "number" || /int|float|number/.test(one.type);
  const step = /int/.test(one.type) ? 1 : "any";
  let control;
  if (typeof usual === "boolean") {
    const options = ["true", "false"];
    control = html`<select value=${String(value ?? usual)} onChange=${(event) => change(name, event.currentTarget.value, usual)}>
      ${options.map((each) => html`<option key=${each} value=${each}>${each === "true" ? "yes" : "no"}</option>`)}</select>`;
  } else if (choices) {
    control = html`<select value=${value ?? usual ?? ""} onChange=${(event) => change(name, event.currentTarget.value, usual ?? "")}>
      ${usual == null && html`<option value="">automatic</option>`}
      ${choices.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}</select>`;
  } else {
    control = html`<input
      type=${number ? "number" : "text"}
      value=${value ?? usual ?? ""}
      placeholder=${usual == null ? "automatic" : ""}
      min=${minimum ?? undefined}
      max=${maximum ?? undefined}
      step=${number ? step : undefined}
      onChange=${(event) => event.currentTarget.reportValidity() && change(name, event.currentTarget.value, usual ?? "")}
    />`;
  }
  return html`<label>${title}${control}<span class="help">${help}</span></label>`;
}
