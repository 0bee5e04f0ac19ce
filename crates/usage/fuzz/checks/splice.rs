//! Request bodies: an edited one means what it meant plus the edit, a broken one is not edited.

use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tollmesh_usage::json::SCALAR_BYTES_MAX;
use tollmesh_usage::{Api, Edits, RequestBody, RequestFacts, Target};

use super::Input;

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    let edits = Edits {
        include_usage: input.choice & 1 == 0,
        model: (input.choice & 2 == 2).then(|| "m\"2".to_owned()),
        max_output_tokens: (input.choice & 4 == 4).then_some(7),
        ..Edits::default()
    };
    let (sent, facts) = relay(&edits, [input.body].into_iter());
    let cut_up = relay(&edits, input.chunks());
    assert_eq!((&cut_up.0, &cut_up.1), (&sent, &facts), "chunks show");
    let (Some(before), Some(after)) = (text(input.body), text(&sent)) else {
        return;
    };
    if !is_object(before) {
        // What an object of options or a value looks like is edited before the rest is known.
        let is_edited_within = before.contains(['\\']) || before.contains("options");
        if !is_edited_within && input.choice & 6 == 0 {
            assert_eq!(after, before, "a broken body was edited");
        }
        return;
    }
    let Ok(meant) = serde_json::from_str::<Value>(before) else {
        return;
    };
    let means = serde_json::from_str(after).expect("an edited body stays well-formed");
    assert_eq!(without_limit(means), without_limit(edited(meant, &edits)));
}

fn relay<'a>(edits: &Edits, chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, RequestFacts) {
    let target = Target::new(Api::OpenAiChat, "openai");
    let mut body = RequestBody::new(&target, None, edits.clone());
    let mut sent = Vec::new();
    for chunk in chunks {
        sent.extend(body.push(chunk).unwrap_or(chunk.to_vec()));
    }
    sent.extend(body.finish().unwrap_or_default());
    (sent, body.facts().clone())
}

/// The body without the byte order mark, which `serde_json` does not take.
fn text(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    Some(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Whether the text begins with a whole object; what follows it cannot be known in time.
fn is_object(text: &str) -> bool {
    let documents = serde_json::Deserializer::from_str(text);
    let first = documents.into_iter::<IgnoredAny>().next();
    matches!(first, Some(Ok(_))) && text.trim_ascii_start().starts_with('{')
}

fn edited(mut body: Value, edits: &Edits) -> Value {
    // A longer one is not read, and passes as it is.
    let is_read = |model: &str| model.len() <= SCALAR_BYTES_MAX;
    if body["model"].as_str().is_some_and(is_read)
        && let Some(model) = &edits.model
    {
        body["model"] = json!(model);
    }
    if !edits.include_usage {
        return body;
    }
    let streams = body["stream"] == json!(true);
    match body.get_mut("stream_options") {
        None | Some(Value::Null) if streams => {
            body["stream_options"] = json!({"include_usage": true});
        }
        Some(Value::Object(options)) => {
            let asked = options.entry("include_usage").or_insert(Value::Null);
            if matches!(asked, Value::Null | Value::Bool(false)) {
                *asked = json!(true);
            }
        }
        _ => {}
    }
    body
}

/// The tables of the crate's own tests say what becomes of the output limit.
fn without_limit(mut body: Value) -> Value {
    if let Some(members) = body.as_object_mut() {
        members.retain(|key, _| !key.starts_with("max_"));
        // Reading a key of a `Value` that is not there leaves a null.
        members.retain(|_, value| !value.is_null());
    }
    body
}
