// The field for the token, where the server wants one.

import { keepToken } from "./api.js";
import { element } from "./element.js";

/** Shows the field; `then` is called once a token was written into it. */
export function showSignIn(place, refused, then) {
  const field = element("input", {
    id: "token",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "token-note",
  });
  const form = element(
    "form",
    { class: "sign-in" },
    element("label", { for: "token" }, "Token"),
    field,
    element("button", { type: "submit" }, "Sign in"),
    element(
      "p",
      { id: "token-note", class: "quiet" },
      "The token of operator.token_file. It is kept until this tab is closed, and sent to this server only.",
    ),
    element("p", { class: "status", role: "alert" }, refused ? "That is not the token." : ""),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    keepToken(field.value.trim());
    place.replaceChildren();
    then();
  });
  place.replaceChildren(form);
  field.focus();
}
