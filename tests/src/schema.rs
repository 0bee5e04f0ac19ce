//! JSON schemas as Kubernetes writes them: OpenAPI 3 of custom resources, and its own, strict ones.
//!
//! What a schema does not name is refused, as an API server does under strict field validation, and so
//! is a keyword that is not understood here: a check must not pass because it was not made.

use std::fs;
use std::path::Path;

use anyhow::Context;
use regex_lite::Regex;
use serde_json::Value;

/// Keywords that demand nothing of a value.
const SILENT: &[&str] = &[
    "$id",
    "$schema",
    "$defs",
    "default",
    "definitions",
    "description",
    "example",
    "externalDocs",
    "format",
    "title",
];

/// A schema, with the definitions that it may refer to.
#[derive(Clone, Copy, Debug)]
pub struct Schema<'a> {
    root: &'a Value,
    definitions: &'a Value,
    /// Whether an object with `properties` takes others too where nothing is said, as JSON Schema has
    /// it; a custom resource loses them.
    is_open: bool,
}

impl<'a> Schema<'a> {
    /// One of Kubernetes' own, which refers to `definitions`.
    pub fn of_kubernetes(root: &'a Value, definitions: &'a Value) -> Schema<'a> {
        Schema {
            root,
            definitions,
            is_open: true,
        }
    }

    /// One of a custom resource: `openAPIV3Schema`.
    pub fn of_custom_resource(root: &'a Value) -> Schema<'a> {
        Schema {
            root,
            definitions: &Value::Null,
            is_open: false,
        }
    }

    /// Everything in `value` that the schema does not allow, with its place.
    pub fn violations(&self, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.check(self.root, value, "", &mut found);
        found
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return found.push(format!("{at}: nothing may stand here")),
            _ => {}
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return match self.definitions.get(name) {
                Some(schema) => self.check(schema, value, at, found),
                None => found.push(format!("{at}: the schema refers to {reference}")),
            };
        }
        if value.is_null() && schema["nullable"] == true {
            return;
        }
        for (keyword, rule) in schema.as_object().into_iter().flatten() {
            self.check_keyword(schema, keyword, rule, value, at, found);
        }
        if schema["x-kubernetes-int-or-string"] == true && !value.is_i64() && !value.is_string() {
            found.push(format!(
                "{at}: {value} is neither a whole number nor a text"
            ));
        }
    }

    fn check_keyword(
        &self,
        schema: &Value,
        keyword: &str,
        rule: &Value,
        value: &Value,
        at: &str,
        found: &mut Vec<String>,
    ) {
        let mut no = |what: String| found.push(format!("{at}: {what}"));
        match keyword {
            "type" if schema["x-kubernetes-int-or-string"] == true => {}
            "type" if !has_type(value, rule) => no(format!("{value} is no {rule}")),
            "enum" if !list(rule).contains(value) => no(format!("{value} is none of {rule}")),
            "const" if rule != value => no(format!("{value} is not {rule}")),
            "pattern" if !matches(value, rule) => no(format!("{value} does not match {rule}")),
            "required" => {
                for name in list(rule).iter().filter_map(Value::as_str) {
                    if value.is_object() && value.get(name).is_none() {
                        no(format!("lacks {name}"));
                    }
                }
            }
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" | "minimum" | "maximum" => {
                if let Some(what) = out_of_bounds(keyword, rule, value) {
                    no(what);
                }
            }
            "properties" => self.check_properties(schema, rule, value, at, found),
            "additionalProperties" if schema.get("properties").is_none() => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    self.check(rule, value, &format!("{at}.{name}"), found);
                }
            }
            "items" => {
                for (n, value) in list(value).iter().enumerate() {
                    self.check(rule, value, &format!("{at}[{n}]"), found);
                }
            }
            "allOf" => {
                for schema in list(rule) {
                    self.check(schema, value, at, found);
                }
            }
            "anyOf" if self.n_fitting(rule, value) == 0 => no(format!("fits none of {rule}")),
            "oneOf" if self.n_fitting(rule, value) != 1 => no(format!("fits not one of {rule}")),
            "not" if self.fits(rule, value) => no(format!("fits what it must not, {rule}")),
            "type"
            | "enum"
            | "const"
            | "pattern"
            | "additionalProperties"
            | "anyOf"
            | "oneOf"
            | "not"
            | "nullable" => {}
            other if SILENT.contains(&other) || other.starts_with("x-kubernetes-") => {}
            other => no(format!("the schema's {other} is not understood here")),
        }
    }

    fn check_properties(
        &self,
        schema: &Value,
        properties: &Value,
        value: &Value,
        at: &str,
        found: &mut Vec<String>,
    ) {
        // Within `anyOf` and its like a schema without a type only adds to the one around it.
        let is_structural = schema["type"] == "object";
        let keeps_unknown = schema["x-kubernetes-preserve-unknown-fields"] == true;
        for (name, value) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            match (properties.get(name), schema.get("additionalProperties")) {
                (Some(schema), _) | (None, Some(schema)) => self.check(schema, value, &at, found),
                (None, None) if self.is_open || keeps_unknown || !is_structural => {}
                (None, None) => found.push(format!("{at}: no such field")),
            }
        }
    }

    fn n_fitting(&self, schemas: &Value, value: &Value) -> usize {
        let fitting = list(schemas)
            .iter()
            .filter(|schema| self.fits(schema, value));
        fitting.count()
    }

    fn fits(&self, schema: &Value, value: &Value) -> bool {
        let mut found = Vec::new();
        self.check(schema, value, "", &mut found);
        found.is_empty()
    }
}

/// Reads a schema's file.
pub fn read(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn has_type(value: &Value, rule: &Value) -> bool {
    if rule.is_array() {
        return list(rule).iter().any(|rule| has_type(value, rule));
    }
    match rule.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

/// Patterns are of texts; a pattern that cannot be read here fits nothing.
fn matches(value: &Value, pattern: &Value) -> bool {
    let (Some(text), Some(pattern)) = (value.as_str(), pattern.as_str()) else {
        return true;
    };
    Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

fn out_of_bounds(keyword: &str, rule: &Value, value: &Value) -> Option<String> {
    let size = match keyword {
        "minLength" | "maxLength" => value.as_str()?.chars().count() as f64,
        "minItems" | "maxItems" => value.as_array()?.len() as f64,
        "minProperties" | "maxProperties" => value.as_object()?.len() as f64,
        _ => value.as_f64()?,
    };
    let bound = rule.as_f64()?;
    let is_out = match keyword.starts_with("min") {
        true => size < bound,
        false => size > bound,
    };
    is_out.then(|| format!("{value} is against {keyword} {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_keyword_finds_what_is_against_it() {
        let cases = [
            ("type", json!({ "type": "integer" }), json!(1), json!("1")),
            (
                "types",
                json!({ "type": ["string", "null"] }),
                json!(null),
                json!(1),
            ),
            ("enum", json!({ "enum": ["a"] }), json!("a"), json!("b")),
            (
                "pattern",
                json!({ "pattern": "^[a-f0-9]{4}$" }),
                json!("00ff"),
                json!("00fg"),
            ),
            (
                "required",
                json!({ "required": ["a"] }),
                json!({ "a": 1 }),
                json!({ "b": 1 }),
            ),
            ("minimum", json!({ "minimum": 1 }), json!(1), json!(0)),
            ("maximum", json!({ "maximum": 9 }), json!(9), json!(10)),
            (
                "maxLength",
                json!({ "maxLength": 2 }),
                json!("äö"),
                json!("abc"),
            ),
            ("minItems", json!({ "minItems": 1 }), json!([1]), json!([])),
            (
                "items",
                json!({ "items": { "type": "string" } }),
                json!(["a"]),
                json!([1]),
            ),
            (
                "anyOf",
                json!({ "anyOf": [{ "type": "string" }] }),
                json!("a"),
                json!(1),
            ),
            (
                "oneOf",
                json!({ "oneOf": [{ "required": ["a"] }, { "required": ["b"] }] }),
                json!({ "a": 1 }),
                json!({ "a": 1, "b": 1 }),
            ),
            (
                "not",
                json!({ "not": { "required": ["a"] } }),
                json!({}),
                json!({ "a": 1 }),
            ),
            (
                "nullable",
                json!({ "type": "string", "nullable": true }),
                json!(null),
                json!(1),
            ),
            (
                "int or string",
                json!({ "x-kubernetes-int-or-string": true, "pattern": "^[0-9]+%$" }),
                json!("9%"),
                json!(true),
            ),
            (
                "map",
                json!({ "type": "object", "additionalProperties": { "type": "string" } }),
                json!({ "a": "b" }),
                json!({ "a": 1 }),
            ),
            (
                "unknown field",
                json!({ "type": "object", "properties": { "a": {} } }),
                json!({ "a": 1 }),
                json!({ "b": 1 }),
            ),
        ];
        for (name, schema, good, bad) in cases {
            let schema = Schema::of_custom_resource(&schema);
            assert_eq!(schema.violations(&good), Vec::<String>::new(), "{name}");
            assert_eq!(schema.violations(&bad).len(), 1, "{name}");
        }
    }

    #[test]
    fn places_are_told() {
        let schema = json!({
            "type": "object",
            "properties": { "a": { "items": { "$ref": "_definitions.json#/$defs/b" } } }
        });
        let definitions = json!({ "b": { "type": "string" } });
        let schema = Schema::of_kubernetes(&schema, &definitions);
        let found = schema.violations(&json!({ "a": ["x", 1] }));
        assert_eq!(found, [".a[1]: 1 is no \"string\""]);
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        for schema in [json!({ "dependentRequired": {} }), json!({ "$ref": "#/x" })] {
            let found = Schema::of_custom_resource(&schema).violations(&json!({}));
            assert_eq!(found.len(), 1, "{schema}");
        }
    }
}
