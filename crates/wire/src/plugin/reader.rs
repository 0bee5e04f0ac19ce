//! Single values of a JSON document, with a note of every mistake and of its place.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Mistake, Problem, SecretKey, TAG_VALUE_BYTES_MAX, TIMEOUT_MS_MAX, is_tag_name};

/// Headers that no tag may read or strip: credentials, and what frames or routes the message.
const RESERVED_HEADERS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-amz-security-token",
    "helicone-auth",
    "x-portkey-api-key",
    "x-litellm-api-key",
    "cookie",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "accept-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "baggage",
    "x-tollmesh-event",
];

#[derive(Default)]
pub(super) struct Reader {
    pub mistakes: Vec<Mistake>,
}

/// An object, and where in the document it stands.
pub(super) struct Table<'a> {
    pub path: String,
    pub map: &'a Map<String, Value>,
}

impl<'a> Table<'a> {
    pub fn key(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    pub fn get(&self, name: &str) -> Option<(String, &'a Value)> {
        Some((self.key(name), self.map.get(name)?))
    }
}

/// Single values.
impl Reader {
    pub fn note(&mut self, key: String, problem: Problem) {
        self.mistakes.push(Mistake { key, problem });
    }

    pub fn table<'v>(
        &mut self,
        path: String,
        value: &'v Value,
        keys: &'static [&'static str],
    ) -> Option<Table<'v>> {
        let Some(map) = value.as_object() else {
            let expected = "an object";
            self.note(path, Problem::Kind { expected });
            return None;
        };
        let table = Table { path, map };
        for name in map.keys().filter(|name| !keys.contains(&name.as_str())) {
            self.note(table.key(name), Problem::UnknownKey { expected: keys });
        }
        Some(table)
    }

    pub fn section<T>(
        &mut self,
        root: &Table<'_>,
        name: &str,
        read: fn(&mut Reader, String, &Value) -> Option<T>,
    ) -> Option<T> {
        let (path, value) = root.get(name)?;
        read(self, path, value)
    }

    pub fn word<T: Copy>(
        &mut self,
        table: &Table<'_>,
        name: &str,
        words: &'static [(&'static str, T)],
    ) -> Option<T> {
        let (_, value) = table.get(name)?;
        let got = match value.as_str() {
            Some(word) => word.to_owned(),
            None => value.to_string(),
        };
        let known = words.iter().find(|(word, _)| *word == got);
        if known.is_none() {
            let expected: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
            self.note(table.key(name), Problem::Word { got, expected });
        }
        known.map(|(_, meaning)| *meaning)
    }

    /// A list of words, without what is written twice.
    pub fn words<T: Copy + PartialEq>(
        &mut self,
        table: &Table<'_>,
        name: &str,
        words: &'static [(&'static str, T)],
    ) -> Vec<T> {
        match table.get(name) {
            Some((path, value)) => self.word_list(path, value, words),
            None => Vec::new(),
        }
    }

    pub fn word_list<T: Copy + PartialEq>(
        &mut self,
        path: String,
        value: &Value,
        words: &'static [(&'static str, T)],
    ) -> Vec<T> {
        let Some(entries) = value.as_array() else {
            let expected = "a list of words";
            self.note(path, Problem::Kind { expected });
            return Vec::new();
        };
        let mut known = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            let key = format!("{path}[{i}]");
            let Some(got) = self.non_empty(key.clone(), entry) else {
                continue;
            };
            match words.iter().find(|(word, _)| *word == got) {
                Some((_, meaning)) if known.contains(meaning) => {}
                Some((_, meaning)) => known.push(*meaning),
                None => {
                    let expected = words.iter().map(|(word, _)| *word).collect();
                    self.note(key, Problem::Word { got, expected });
                }
            }
        }
        known
    }

    /// Notes that a hash has no key.
    pub fn demand_key(&mut self, table: &Table<'_>, name: &str) {
        if table.get(name).is_none() {
            let remedy = "a key made with `openssl rand -hex 16`, the same in every proxy";
            self.note(table.key(name), Problem::Missing { remedy });
        }
    }

    pub fn secret_key(&mut self, table: &Table<'_>, name: &str) -> Option<SecretKey> {
        let text = self.text(table, name)?;
        let key = SecretKey::parse(&text);
        if key.is_none() {
            self.note(table.key(name), Problem::Key);
        }
        key
    }

    pub fn text(&mut self, table: &Table<'_>, name: &str) -> Option<String> {
        let (key, value) = table.get(name)?;
        self.non_empty(key, value)
    }

    pub fn non_empty(&mut self, key: String, value: &Value) -> Option<String> {
        let text = value.as_str().filter(|text| !text.is_empty());
        if text.is_none() {
            let expected = "a string that is not empty";
            self.note(key, Problem::Kind { expected });
        }
        text.map(str::to_owned)
    }

    pub fn truth(&mut self, table: &Table<'_>, name: &str) -> Option<bool> {
        let (key, value) = table.get(name)?;
        if !value.is_boolean() {
            let expected = "true or false";
            self.note(key, Problem::Kind { expected });
        }
        value.as_bool()
    }

    pub fn timeout(&mut self, table: &Table<'_>, default: u32) -> u32 {
        let (min, max) = (1, TIMEOUT_MS_MAX);
        let Some((key, value)) = table.get("timeout_ms") else {
            return default;
        };
        match whole(value).filter(|ms| (min..=max).contains(ms)) {
            Some(ms) => ms,
            None => {
                self.note(key, Problem::Range { min, max });
                default
            }
        }
    }

    pub fn tag_map(
        &mut self,
        parent: &Table<'_>,
        name: &str,
        read: fn(&mut Reader, String, &Value) -> Option<String>,
    ) -> BTreeMap<String, String> {
        let Some((path, value)) = parent.get(name) else {
            return BTreeMap::new();
        };
        let Some(map) = value.as_object() else {
            let expected = "an object of strings, keyed by tag name";
            self.note(path, Problem::Kind { expected });
            return BTreeMap::new();
        };
        let mut tags = BTreeMap::new();
        for (tag, value) in map {
            let key = format!("{path}.{tag}");
            if !is_tag_name(tag) {
                self.note(key, Problem::TagName);
            } else if let Some(text) = read(self, key, value) {
                tags.insert(tag.clone(), text);
            }
        }
        tags
    }

    pub fn tag_names(&mut self, parent: &Table<'_>, name: &str) -> Vec<String> {
        let Some((path, value)) = parent.get(name) else {
            return Vec::new();
        };
        let Some(entries) = value.as_array() else {
            let expected = "a list of tag names";
            self.note(path, Problem::Kind { expected });
            return Vec::new();
        };
        let mut names = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            match entry.as_str().filter(|name| is_tag_name(name)) {
                Some(name) => names.push(name.to_owned()),
                None => self.note(format!("{path}[{i}]"), Problem::TagName),
            }
        }
        names
    }

    pub fn tag_value(&mut self, key: String, value: &Value) -> Option<String> {
        let text = self.non_empty(key.clone(), value)?;
        if text.len() > TAG_VALUE_BYTES_MAX {
            self.note(key, Problem::TooLong);
            return None;
        }
        Some(text)
    }

    pub fn header_name(&mut self, key: String, value: &Value) -> Option<String> {
        let name = self.non_empty(key.clone(), value)?.to_ascii_lowercase();
        if !is_header_name(&name) {
            self.note(key, Problem::HeaderName);
            return None;
        }
        if let Some(header) = RESERVED_HEADERS.iter().find(|h| **h == name) {
            self.note(key, Problem::ReservedHeader { header });
            return None;
        }
        Some(name)
    }

    /// The empty string turns the source off.
    pub fn header_prefix(&mut self, key: String, value: &Value) -> Option<String> {
        if value.as_str() == Some("") {
            return None;
        }
        let prefix = self.non_empty(key.clone(), value)?.to_ascii_lowercase();
        if !is_header_name(&prefix) {
            self.note(key, Problem::HeaderName);
            return None;
        }
        if let Some(header) = RESERVED_HEADERS.iter().find(|h| h.starts_with(&prefix)) {
            self.note(key, Problem::ReservedHeader { header });
            return None;
        }
        Some(prefix)
    }
}

/// A whole number, also where a Protobuf `Struct` has made `1000.0` of `1000`.
fn whole(value: &Value) -> Option<u32> {
    let digits = value.as_number()?.to_string();
    digits.strip_suffix(".0").unwrap_or(&digits).parse().ok()
}

/// Letters, digits and `-`, `_`, `.`: what gateways pass on.
fn is_header_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    !name.is_empty() && name.bytes().all(plain)
}
