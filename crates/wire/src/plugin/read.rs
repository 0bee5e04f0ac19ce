//! The parts of a plugin configuration: which keys there are, and what each may hold.

use serde_json::Value;

use super::reader::{Reader, Table};
use super::{
    AGGREGATOR_TIMEOUT_MS_DEFAULT, API_FAMILIES, AcceptEncoding, Admission, AggregatorPeer,
    ApiRule, IncludeUsage, Mistake, OnUnavailable, PluginConfig, Problem, Relay, Role, SecretKey,
    SignedBy,
};
use crate::Source;

pub(super) fn parse(json: &[u8]) -> Result<PluginConfig, Vec<Mistake>> {
    let mut reader = Reader::default();
    let config = match serde_json::from_slice::<Value>(json) {
        Ok(document) => reader.config(&document),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            reader.note(String::new(), Problem::NotJson { line, column });
            None
        }
    };
    match config {
        Some(config) if reader.mistakes.is_empty() => Ok(config),
        _ => Err(reader.mistakes),
    }
}

/// The configuration's parts, in the order of the documentation; `tags` has a file of its own.
impl Reader {
    fn config(&mut self, document: &Value) -> Option<PluginConfig> {
        const KEYS: &[&str] = &[
            "aggregator",
            "tags",
            "include_usage",
            "accept_encoding",
            "signed_by",
            "admission",
            "fingerprint",
            "apis",
            "relay",
            "source",
        ];
        const INCLUDE_USAGE: &[(&str, IncludeUsage)] = &[
            ("inject_and_strip", IncludeUsage::InjectAndStrip),
            ("off", IncludeUsage::Off),
        ];
        const ACCEPT_ENCODING: &[(&str, AcceptEncoding)] = &[
            ("narrow", AcceptEncoding::Narrow),
            ("keep", AcceptEncoding::Keep),
        ];
        const SIGNED_BY: &[(&str, SignedBy)] =
            &[("app", SignedBy::App), ("envoy", SignedBy::Envoy)];
        const RELAY: &[(&str, Relay)] = &[("auto", Relay::Auto), ("never", Relay::Never)];
        let table = self.table(String::new(), document, KEYS)?;
        let aggregator = self.aggregator(&table);
        let tags = self.section(&table, "tags", Reader::tags);
        let include_usage = self.word(&table, "include_usage", INCLUDE_USAGE);
        let accept_encoding = self.word(&table, "accept_encoding", ACCEPT_ENCODING);
        let signed_by = self.word(&table, "signed_by", SIGNED_BY);
        let admission = self.section(&table, "admission", Reader::admission);
        let fingerprint = self.section(&table, "fingerprint", Reader::fingerprint);
        let apis = self.apis(&table);
        let relay = self.word(&table, "relay", RELAY);
        let source = self.section(&table, "source", Reader::source);
        Some(PluginConfig {
            aggregator: aggregator?,
            tags: tags.unwrap_or_default(),
            include_usage: include_usage.unwrap_or(IncludeUsage::InjectAndStrip),
            accept_encoding: accept_encoding.unwrap_or(AcceptEncoding::Narrow),
            signed_by: signed_by.unwrap_or(SignedBy::App),
            admission: admission.unwrap_or_default(),
            fingerprint,
            apis,
            relay: relay.unwrap_or(Relay::Auto),
            source: source.unwrap_or_default(),
        })
    }

    fn aggregator(&mut self, root: &Table<'_>) -> Option<AggregatorPeer> {
        const KEYS: &[&str] = &["cluster", "timeout_ms"];
        let remedy = "the name of Envoy's cluster for the aggregator";
        let Some((path, value)) = root.get("aggregator") else {
            self.note("aggregator.cluster".to_owned(), Problem::Missing { remedy });
            return None;
        };
        let table = self.table(path, value, KEYS)?;
        let timeout_ms = self.timeout(&table, AGGREGATOR_TIMEOUT_MS_DEFAULT);
        if table.get("cluster").is_none() {
            self.note(table.key("cluster"), Problem::Missing { remedy });
        }
        let cluster = self.text(&table, "cluster")?;
        Some(AggregatorPeer {
            cluster,
            timeout_ms,
        })
    }

    fn admission(&mut self, path: String, value: &Value) -> Option<Admission> {
        const KEYS: &[&str] = &["timeout_ms", "on_unavailable"];
        const ON_UNAVAILABLE: &[(&str, OnUnavailable)] = &[
            ("allow", OnUnavailable::Allow),
            ("deny", OnUnavailable::Deny),
        ];
        let table = self.table(path, value, KEYS)?;
        let mut admission = Admission::default();
        admission.timeout_ms = self.timeout(&table, admission.timeout_ms);
        if let Some(answer) = self.word(&table, "on_unavailable", ON_UNAVAILABLE) {
            admission.on_unavailable = answer;
        }
        Some(admission)
    }

    fn fingerprint(&mut self, path: String, value: &Value) -> Option<SecretKey> {
        const KEYS: &[&str] = &["key"];
        let table = self.table(path, value, KEYS)?;
        self.demand_key(&table, "key");
        self.secret_key(&table, "key")
    }

    fn apis(&mut self, root: &Table<'_>) -> Vec<ApiRule> {
        let expected = "a list of objects, each with host and api";
        let Some((path, value)) = root.get("apis") else {
            return Vec::new();
        };
        let Some(entries) = value.as_array() else {
            self.note(path, Problem::Kind { expected });
            return Vec::new();
        };
        let place = |i| format!("{path}[{i}]");
        let rules = entries.iter().enumerate();
        rules
            .filter_map(|(i, entry)| self.api_rule(place(i), entry))
            .collect()
    }

    fn api_rule(&mut self, path: String, value: &Value) -> Option<ApiRule> {
        const KEYS: &[&str] = &["host", "path", "api", "provider", "role", "include_usage"];
        const ROLE: &[(&str, Role)] = &[
            ("provider", Role::Provider),
            ("gateway", Role::Gateway),
            ("ignore", Role::Ignore),
        ];
        let table = self.table(path, value, KEYS)?;
        let role = self.word(&table, "role", ROLE).unwrap_or(Role::Provider);
        let path = self.text(&table, "path");
        if path
            .as_ref()
            .is_some_and(|path| !path.starts_with(['/', '*']))
        {
            self.note(table.key("path"), Problem::Path);
        }
        let api = self.family(&table);
        if role == Role::Provider && table.get("api").is_none() {
            let remedy = "the API family that the host speaks, as \"openai\"";
            self.note(table.key("api"), Problem::Missing { remedy });
        }
        let provider = self.text(&table, "provider");
        let include_usage = self.truth(&table, "include_usage").unwrap_or(false);
        if table.get("host").is_none() {
            let remedy = "a host pattern, as \"llm.internal\" or \"*.llm.internal\"";
            self.note(table.key("host"), Problem::Missing { remedy });
        }
        let host = self.text(&table, "host")?.to_ascii_lowercase();
        if host.contains('/') {
            self.note(table.key("host"), Problem::Host);
        }
        Some(ApiRule {
            host,
            path: path.unwrap_or_else(|| "*".to_owned()),
            api,
            provider,
            role,
            include_usage,
        })
    }

    fn family(&mut self, table: &Table<'_>) -> Option<String> {
        let got = self.text(table, "api")?;
        if !API_FAMILIES.contains(&got.as_str()) {
            let expected = API_FAMILIES.to_vec();
            self.note(table.key("api"), Problem::Word { got, expected });
            return None;
        }
        Some(got)
    }

    fn source(&mut self, path: String, value: &Value) -> Option<Source> {
        const KEYS: &[&str] = &[
            "namespace",
            "workload",
            "service_account",
            "pod",
            "node",
            "cluster",
        ];
        let table = self.table(path, value, KEYS)?;
        Some(Source {
            namespace: self.text(&table, "namespace"),
            workload: self.text(&table, "workload"),
            service_account: self.text(&table, "service_account"),
            principal: None,
            pod: self.text(&table, "pod"),
            node: self.text(&table, "node"),
            cluster: self.text(&table, "cluster"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::OnMissing;
    use super::*;

    fn mistakes(json: &str) -> Vec<String> {
        match parse(json.as_bytes()) {
            Ok(_) => Vec::new(),
            Err(mistakes) => mistakes.iter().map(Mistake::to_string).collect(),
        }
    }

    #[test]
    fn only_the_cluster_must_be_there() {
        let config = parse(br#"{"aggregator":{"cluster":"tollmesh"}}"#).unwrap();
        assert_eq!(config, PluginConfig::with_cluster("tollmesh"));
        assert_eq!(config.tags.header_prefix.as_deref(), Some("x-llm-tag-"));
        assert_eq!(config.fingerprint, None);
    }

    #[test]
    fn the_fuller_example_says_what_it_means() {
        let config = parse(
            br#"{ "aggregator": { "cluster": "tollmesh", "timeout_ms": 1500.0 },
            "tags": { "headers": { "team": "X-LLM-Team" }, "header_prefix": "",
                      "baggage": { "feature": "app.feature" },
                      "defaults": { "environment": "production" },
                      "required": ["team", "feature"], "on_missing": "deny", "strip": false },
            "include_usage": "off", "accept_encoding": "keep", "signed_by": "envoy",
            "admission": { "timeout_ms": 300, "on_unavailable": "deny" },
            "fingerprint": { "key": "000102030405060708090A0B0C0D0E0F" },
            "source": { "cluster": "eu-1" },
            "apis": [ { "host": "LLM.internal", "path": "/v1/*", "api": "openai",
                        "provider": "vllm", "include_usage": true },
                      { "host": "hooks.internal", "role": "ignore" },
                      { "host": "*", "role": "gateway" } ],
            "relay": "never" }"#,
        )
        .unwrap();
        assert_eq!(config.aggregator.timeout_ms, 1_500);
        assert_eq!(config.tags.headers["team"], "x-llm-team");
        assert_eq!(config.tags.header_prefix, None);
        assert_eq!(config.tags.baggage["feature"], "app.feature");
        assert_eq!(config.tags.on_missing, OnMissing::Deny);
        assert!(!config.tags.strip);
        assert_eq!(config.include_usage, IncludeUsage::Off);
        assert_eq!(config.accept_encoding, AcceptEncoding::Keep);
        assert_eq!(config.signed_by, SignedBy::Envoy);
        assert_eq!(config.admission.timeout_ms, 300);
        assert_eq!(config.admission.on_unavailable, OnUnavailable::Deny);
        let key = config.fingerprint.expect("a key");
        assert_eq!(key.0, std::array::from_fn(|i| i as u8));
        assert_eq!(format!("{key:?}"), "SecretKey(..)");
        assert_eq!(config.source.cluster.as_deref(), Some("eu-1"));
        assert_eq!(config.apis.len(), 3);
        assert_eq!(config.apis[0].host, "llm.internal");
        assert!(config.apis[0].include_usage);
        assert_eq!(config.apis[1].path, "*");
        assert_eq!(config.apis[1].role, Role::Ignore);
        assert_eq!(config.apis[2].role, Role::Gateway);
        assert_eq!(config.apis[2].api, None);
        assert_eq!(config.relay, Relay::Never);
    }

    #[test]
    fn each_mistake_names_its_place_and_its_remedy() {
        let with = |rest: &str| format!(r#"{{"aggregator":{{"cluster":"t"}},{rest}}}"#);
        let cases = [
            (
                "{",
                "not JSON at line 1, column 1; write one JSON object".to_owned(),
            ),
            ("[]", "expected an object".to_owned()),
            (
                "{}",
                "aggregator.cluster: missing; set it to the name of Envoy's cluster for the \
                 aggregator"
                    .to_owned(),
            ),
        ];
        for (json, message) in cases {
            assert_eq!(mistakes(json), [message], "{json}");
        }
        let cases = [
            (
                r#""tag":{}"#,
                r#"tag: unknown key; expected one of "aggregator", "tags", "include_usage", "accept_encoding", "signed_by", "admission", "fingerprint", "apis", "relay" or "source""#,
            ),
            (
                r#""tags":{"on_missing":"drop"}"#,
                r#"tags.on_missing: unknown value "drop"; expected "record", "header" or "deny""#,
            ),
            (
                r#""tags":{"strip":"yes"}"#,
                "tags.strip: expected true or false",
            ),
            (
                r#""tags":{"headers":{"team":"Authorization"}}"#,
                "tags.headers.team: authorization can never be a tag; name a header that carries \
                 nothing else",
            ),
            (
                r#""tags":{"header_prefix":"x-"}"#,
                "tags.header_prefix: x-api-key can never be a tag; name a header that carries \
                 nothing else",
            ),
            (
                r#""tags":{"headers":{"team":"x team"}}"#,
                "tags.headers.team: not a header name; use letters, digits and - only",
            ),
            (
                r#""tags":{"required":["Team"]}"#,
                "tags.required[0]: not a tag name; use at most 128 of the characters a-z 0-9 _ - . \
                 only",
            ),
            (
                r#""admission":{"timeout_ms":0}"#,
                "admission.timeout_ms: expected a whole number from 1 to 60000",
            ),
            (
                r#""fingerprint":{}"#,
                "fingerprint.key: missing; set it to a key made with `openssl rand -hex 16`, the \
                 same in every proxy",
            ),
            (
                r#""fingerprint":{"key":"+0102030405060708090A0B0C0D0E0F0"}"#,
                "fingerprint.key: expected 32 hexadecimal digits; make a key with `openssl rand \
                 -hex 16`",
            ),
            (
                r#""apis":[{"host":"a","api":"openai"},{"api":"openai"}]"#,
                r#"apis[1].host: missing; set it to a host pattern, as "llm.internal" or "*.llm.internal""#,
            ),
            (
                r#""apis":[{"host":"a","api":"cobol"}]"#,
                r#"apis[0].api: unknown value "cobol"; expected "openai", "anthropic", "gemini", "vertex", "azure", "bedrock", "cohere", "ollama", "watsonx", "writer", "mistral", "dashscope" or "databricks""#,
            ),
            (
                r#""apis":[{"host":"https://a/","api":"openai"}]"#,
                r#"apis[0].host: no host has a "/"; write it without scheme and path, as "llm.internal:8000""#,
            ),
            (
                r#""apis":[{"host":"a","path":"v1/*","api":"openai"}]"#,
                r#"apis[0].path: no path begins so; begin it with "/" or "*""#,
            ),
            (
                r#""include_usage":true"#,
                r#"include_usage: unknown value "true"; expected "inject_and_strip" or "off""#,
            ),
            (
                r#""relay":"always""#,
                r#"relay: unknown value "always"; expected "auto" or "never""#,
            ),
            (
                r#""apis":[{"host":"a"}]"#,
                r#"apis[0].api: missing; set it to the API family that the host speaks, as "openai""#,
            ),
        ];
        for (rest, message) in cases {
            assert_eq!(mistakes(&with(rest)), [message], "{rest}");
        }
    }

    #[test]
    fn every_family_is_one_that_can_be_read() {
        for name in API_FAMILIES {
            assert!(
                tollmesh_usage::detect::Family::parse(name).is_some(),
                "{name}"
            );
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let json = r#"{"include_usage":"on","tags":{"strp":true},"admission":[]}"#;
        assert_eq!(mistakes(json).len(), 4);
    }
}
