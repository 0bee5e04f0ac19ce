//! Request bodies: an edited one means what it meant plus the edit, a broken one is not edited.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
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
    let Ok(members) = serde_json::from_str::<Members>(before) else {
        return;
    };
    let meant = edited(meant, &edits, &members);
    let means = serde_json::from_str(after).expect("an edited body stays well-formed");
    assert_eq!(without_limit(means), without_limit(meant));
}

fn relay<'a>(edits: &Edits, chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, RequestFacts) {
    let target = Target::new(Api::OpenAiChat, "azure");
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

/// The members of an object as they are written, each with its value.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Members {
    /// The last `stream_options` after the usage event was asked for; `None` where there is none.
    fn options_asked(&self) -> Option<Value> {
        let (mut streams, mut has_sources) = (false, false);
        // What it is, and whether we put it in the place of a null.
        let mut options: Option<(Value, bool)> = None;
        for (key, value) in &self.0 {
            match key.as_str() {
                "stream" => streams = *value == json!(true),
                "data_sources" => has_sources = !value.is_null(),
                "stream_options" if has_sources => options = Some((value.clone(), false)),
                "stream_options" if value.is_null() => options = Some((Value::Null, streams)),
                "stream_options" => options = Some((with_usage(value.clone()), false)),
                _ => {}
            }
        }
        let asks = streams && !has_sources;
        let asked = json!({"include_usage": true});
        match options {
            None => asks.then_some(asked),
            Some((_, true)) if asks => Some(asked),
            Some((value, _)) => Some(value),
        }
    }
}

fn with_usage(mut options: Value) -> Value {
    if let Some(options) = options.as_object_mut() {
        let asked = options.entry("include_usage").or_insert(Value::Null);
        if matches!(asked, Value::Null | Value::Bool(false)) {
            *asked = json!(true);
        }
    }
    options
}

fn edited(mut body: Value, edits: &Edits, members: &Members) -> Value {
    // A longer one is not read, and passes as it is.
    let is_read = |model: &str| model.len() <= SCALAR_BYTES_MAX;
    if body["model"].as_str().is_some_and(is_read)
        && let Some(model) = &edits.model
    {
        body["model"] = json!(model);
    }
    if edits.include_usage
        && let Some(options) = members.options_asked()
    {
        body["stream_options"] = options;
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
