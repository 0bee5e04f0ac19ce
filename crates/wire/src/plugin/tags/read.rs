//! `tags` as an operator writes it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::reader::{Reader, Table};
use super::super::{Problem, TagOrigin, is_tag_name};
use super::{OnMissing, TagAlias, TagShape, TagSources, WorkloadTags};

const ON_MISSING: &[(&str, OnMissing)] = &[
    ("record", OnMissing::Record),
    ("header", OnMissing::Header),
    ("deny", OnMissing::Deny),
];
const ALIASES: &[(&str, TagAlias)] = &[
    ("helicone", TagAlias::Helicone),
    ("portkey", TagAlias::Portkey),
    ("litellm", TagAlias::LiteLlm),
];
const SHAPES: &[(&str, TagShape)] = &[("email", TagShape::Email), ("key", TagShape::Key)];
const ORIGINS: &[(&str, TagOrigin)] = &[
    ("headers", TagOrigin::Headers),
    ("header_prefix", TagOrigin::HeaderPrefix),
    ("baggage", TagOrigin::Baggage),
    ("aliases", TagOrigin::Aliases),
    ("by_workload", TagOrigin::ByWorkload),
    ("defaults", TagOrigin::Defaults),
];

impl Reader {
    pub(in crate::plugin) fn tags(&mut self, path: String, value: &Value) -> Option<TagSources> {
        const KEYS: &[&str] = &[
            "headers",
            "header_prefix",
            "baggage",
            "aliases",
            "by_workload",
            "defaults",
            "precedence",
            "required",
            "on_missing",
            "strip",
            "hash",
            "hash_shapes",
            "hash_key",
        ];
        let table = self.table(path, value, KEYS)?;
        let mut tags = TagSources {
            headers: self.tag_map(&table, "headers", Reader::header_name),
            ..TagSources::default()
        };
        if let Some((key, value)) = table.get("header_prefix") {
            tags.header_prefix = self.header_prefix(key, value);
        }
        tags.baggage = self.tag_map(&table, "baggage", Reader::non_empty);
        tags.aliases = self.words(&table, "aliases", ALIASES);
        tags.by_workload = self.by_workload(&table);
        tags.defaults = self.tag_map(&table, "defaults", Reader::tag_value);
        tags.precedence = self.precedence(&table);
        tags.required = self.tag_names(&table, "required");
        if let Some(on_missing) = self.word(&table, "on_missing", ON_MISSING) {
            tags.on_missing = on_missing;
        }
        if let Some(strip) = self.truth(&table, "strip") {
            tags.strip = strip;
        }
        tags.hash = self.tag_names(&table, "hash");
        tags.hash_shapes = self.words(&table, "hash_shapes", SHAPES);
        if !tags.hash.is_empty() || !tags.hash_shapes.is_empty() {
            self.demand_key(&table, "hash_key");
        }
        tags.hash_key = self.secret_key(&table, "hash_key");
        Some(tags)
    }

    fn by_workload(&mut self, parent: &Table<'_>) -> Vec<WorkloadTags> {
        let Some((path, value)) = parent.get("by_workload") else {
            return Vec::new();
        };
        let Some(entries) = value.as_array() else {
            let expected = "a list of objects, each with a selector and tags";
            self.note(path, Problem::Kind { expected });
            return Vec::new();
        };
        let place = |i| format!("{path}[{i}]");
        let entries = entries.iter().enumerate();
        entries
            .filter_map(|(i, entry)| self.workload_tags(place(i), entry))
            .collect()
    }

    fn workload_tags(&mut self, path: String, value: &Value) -> Option<WorkloadTags> {
        const SELECTORS: &[&str] = &[
            "namespace",
            "workload",
            "service_account",
            "principal",
            "cluster",
        ];
        const KEYS: &[&str] = &[
            "namespace",
            "workload",
            "service_account",
            "principal",
            "cluster",
            "tags",
        ];
        let table = self.table(path.clone(), value, KEYS)?;
        if SELECTORS.iter().all(|name| table.get(name).is_none()) {
            let expected = SELECTORS;
            self.note(path, Problem::NoSelector { expected });
        }
        if table.get("tags").is_none() {
            let remedy = "the tags of these workloads, as {\"team\": \"checkout\"}";
            self.note(table.key("tags"), Problem::Missing { remedy });
        }
        Some(WorkloadTags {
            namespace: self.text(&table, "namespace"),
            workload: self.text(&table, "workload"),
            service_account: self.text(&table, "service_account"),
            principal: self.text(&table, "principal"),
            cluster: self.text(&table, "cluster"),
            tags: self.tag_map(&table, "tags", Reader::tag_value),
        })
    }

    fn precedence(&mut self, parent: &Table<'_>) -> BTreeMap<String, Vec<TagOrigin>> {
        let Some((path, value)) = parent.get("precedence") else {
            return BTreeMap::new();
        };
        let Some(map) = value.as_object() else {
            let expected = "an object of lists, keyed by tag name or \"*\"";
            self.note(path, Problem::Kind { expected });
            return BTreeMap::new();
        };
        let mut precedence = BTreeMap::new();
        for (tag, value) in map {
            let key = format!("{path}.{tag}");
            if tag != "*" && !is_tag_name(tag) {
                self.note(key, Problem::TagName);
                continue;
            }
            let origins = self.word_list(key, value, ORIGINS);
            precedence.insert(tag.clone(), origins);
        }
        precedence
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Mistake, PluginConfig};
    use super::*;

    fn read(tags: &str) -> Result<TagSources, Vec<String>> {
        let json = format!(r#"{{"aggregator":{{"cluster":"t"}},"tags":{tags}}}"#);
        match PluginConfig::parse(json.as_bytes()) {
            Ok(config) => Ok(config.tags),
            Err(mistakes) => Err(mistakes.iter().map(Mistake::to_string).collect()),
        }
    }

    #[test]
    fn the_fuller_example_says_what_it_means() {
        let tags = read(
            r#"{ "aliases": ["helicone", "litellm", "helicone"],
                "by_workload": [
                  { "namespace": "shop", "workload": "checkout-*", "tags": { "team": "red" } },
                  { "principal": "spiffe://*/ns/ml/sa/*", "tags": { "team": "ml" } } ],
                "precedence": { "team": ["by_workload", "headers"], "*": ["headers"] },
                "on_missing": "header",
                "hash": ["user"], "hash_shapes": ["email", "key"],
                "hash_key": "000102030405060708090a0b0c0d0e0f" }"#,
        )
        .expect("is right");
        assert_eq!(tags.aliases, [TagAlias::Helicone, TagAlias::LiteLlm]);
        assert_eq!(tags.by_workload[0].workload.as_deref(), Some("checkout-*"));
        assert_eq!(tags.by_workload[1].tags["team"], "ml");
        assert_eq!(tags.rank("team", TagOrigin::ByWorkload), Some(0));
        assert_eq!(tags.rank("team", TagOrigin::Headers), Some(1));
        assert_eq!(tags.rank("team", TagOrigin::Baggage), None);
        assert_eq!(tags.rank("user", TagOrigin::Headers), Some(0));
        assert_eq!(tags.rank("user", TagOrigin::Defaults), None);
        assert_eq!(tags.on_missing, OnMissing::Header);
        assert_eq!(tags.hash, ["user"]);
        assert_eq!(tags.hash_shapes, [TagShape::Email, TagShape::Key]);
        assert!(tags.hash_key.is_some());
    }

    #[test]
    fn without_a_declaration_the_order_is_that_of_the_origins() {
        let ranks = TagOrigin::ALL.map(|origin| TagSources::default().rank("team", origin));
        assert_eq!(ranks, [0, 1, 2, 3, 4, 5].map(Some));
        let words = ORIGINS.iter().map(|(_, origin)| *origin);
        assert_eq!(words.collect::<Vec<_>>(), TagOrigin::ALL);
    }

    #[test]
    fn each_mistake_names_its_place_and_its_remedy() {
        let remedy = "missing; set it to a key made with `openssl rand -hex 16`, the same in every \
                      proxy";
        for (tags, mistake) in [
            (
                r#"{"aliases":["langfuse"]}"#,
                r#"tags.aliases[0]: unknown value "langfuse"; expected "helicone", "portkey" or "litellm""#,
            ),
            (
                r#"{"aliases":"helicone"}"#,
                "tags.aliases: expected a list of words",
            ),
            (
                r#"{"by_workload":[{"tags":{"team":"red"}}]}"#,
                r#"tags.by_workload[0]: selects no workload; name at least one of "namespace", "workload", "service_account", "principal" or "cluster""#,
            ),
            (
                r#"{"by_workload":[{"namespace":"shop"}]}"#,
                r#"tags.by_workload[0].tags: missing; set it to the tags of these workloads, as {"team": "checkout"}"#,
            ),
            (
                r#"{"by_workload":{}}"#,
                "tags.by_workload: expected a list of objects, each with a selector and tags",
            ),
            (
                r#"{"precedence":{"team":["baggage","body"]}}"#,
                r#"tags.precedence.team[1]: unknown value "body"; expected "headers", "header_prefix", "baggage", "aliases", "by_workload" or "defaults""#,
            ),
            (
                r#"{"precedence":{"Team":["baggage"]}}"#,
                "tags.precedence.Team: not a tag name; use at most 128 of the characters a-z 0-9 \
                 _ - . only",
            ),
            (r#"{"hash":["user"]}"#, &format!("tags.hash_key: {remedy}")),
            (
                r#"{"hash_shapes":["email"]}"#,
                &format!("tags.hash_key: {remedy}"),
            ),
            (
                r#"{"hash":["user"],"hash_key":"secret"}"#,
                "tags.hash_key: expected 32 hexadecimal digits; make a key with `openssl rand -hex \
                 16`",
            ),
            (
                r#"{"headers":{"user":"Helicone-Auth"}}"#,
                "tags.headers.user: helicone-auth can never be a tag; name a header that carries \
                 nothing else",
            ),
        ] {
            assert_eq!(read(tags), Err(vec![mistake.to_owned()]), "{tags}");
        }
    }
}
