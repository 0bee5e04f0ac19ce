//! What is said about a call, by its request's headers and by the mesh: tags, read and taken out.

mod aliases;
mod baggage;
mod claims;
mod privacy;

use std::collections::BTreeMap;

use tollmesh_wire::Source;
use tollmesh_wire::plugin::{TagOrigin, TagSources, WorkloadTags, is_tag_name, standard_tag};

use crate::config::matches;
use crate::edit::HeaderEdit;
use crate::headers::Headers;
use crate::signature::Signature;

use claims::Claims;

/// The most tags that a request can give its event, so that a caller cannot make events large.
/// Those beyond it are counted as `tags_refused`.
pub const TAGS_MAX: usize = 64;

/// The tags of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tagged {
    /// Name to value.
    pub tags: BTreeMap<String, String>,
    /// What takes the headers that carried them out of the request.
    pub edits: Vec<HeaderEdit>,
    /// Claims that could not be tags (not text, too many), and values that were cut.
    pub n_refused: u64,
    /// Tags for which a request claims something else than the mesh knows of its caller.
    pub n_conflicts: u64,
}

/// Reads the tags of a request by that caller. Who may say a tag, and who before whom, is declared
/// by [`TagSources::precedence`]; else it is the order of [`TagOrigin::ALL`]. Of several values that
/// one origin has for a tag the first counts.
pub fn tags(
    sources: &TagSources,
    headers: &Headers<'_>,
    signature: &Signature<'_>,
    caller: &Source,
) -> Tagged {
    let known = known(&sources.by_workload, caller);
    let mut claims = Claims::new(sources, &known);
    mapped(sources, headers, &mut claims);
    prefixed(sources, headers, &mut claims);
    if !sources.baggage.is_empty() {
        baggage::read(sources, headers, &mut claims);
    }
    for alias in &sources.aliases {
        aliases::read(*alias, headers, &mut claims);
    }
    for (tag, value) in &known {
        claims.claim(TagOrigin::ByWorkload, tag, value.as_bytes());
    }
    for (tag, value) in &sources.defaults {
        claims.claim(TagOrigin::Defaults, tag, value.as_bytes());
    }
    let mut tagged = claims.finish();
    let strip = sources.strip;
    let may_edit = |edit: &HeaderEdit| strip && signature.leaves_header_free(edit.name());
    tagged.edits.retain(may_edit);
    tagged
}

/// The required tags that are not there.
pub fn missing(sources: &TagSources, tags: &BTreeMap<String, String>) -> Vec<String> {
    let required = sources.required.iter();
    let absent = required.filter(|name| !tags.contains_key(name.as_str()));
    absent.cloned().collect()
}

/// How an app says that tag, in words; `None` where it has no way to.
pub fn remedy(sources: &TagSources, tag: &str) -> Option<String> {
    let may = |origin| sources.rank(tag, origin).is_some();
    if let Some(header) = sources.headers.get(tag).filter(|_| may(TagOrigin::Headers)) {
        return Some(format!("the request header {header:?}"));
    }
    if let Some(prefix) = &sources.header_prefix
        && may(TagOrigin::HeaderPrefix)
    {
        return Some(format!("the request header \"{prefix}{tag}\""));
    }
    let key = sources
        .baggage
        .get(tag)
        .filter(|_| may(TagOrigin::Baggage))?;
    Some(format!("the baggage member {key:?}"))
}

/// Tags named like a field of the caller's identity that say something else than is known.
pub fn impostors(tags: &BTreeMap<String, String>, caller: &Source) -> u64 {
    let fields = [
        ("namespace", &caller.namespace),
        ("workload", &caller.workload),
        ("service_account", &caller.service_account),
        ("principal", &caller.principal),
    ];
    let differs = |(name, known): &(&str, &Option<String>)| {
        let said = known.as_ref().and_then(|_| tags.get(*name));
        said.is_some() && said != known.as_ref()
    };
    fields.iter().filter(|field| differs(field)).count() as u64
}

/// What the mesh says of that caller: for each tag, the first entry that fits and has it.
fn known<'s>(entries: &'s [WorkloadTags], caller: &Source) -> Vec<(&'s str, &'s str)> {
    let mut known: Vec<(&str, &str)> = Vec::new();
    for entry in entries.iter().filter(|entry| selects(entry, caller)) {
        for (tag, value) in &entry.tags {
            if known.iter().all(|(other, _)| other != tag) {
                known.push((tag, value));
            }
        }
    }
    known
}

fn selects(entry: &WorkloadTags, caller: &Source) -> bool {
    let fits = |pattern: &Option<String>, value: &Option<String>| match (pattern, value) {
        (None, _) => true,
        (Some(pattern), Some(value)) => matches(pattern, value),
        (Some(_), None) => false,
    };
    fits(&entry.namespace, &caller.namespace)
        && fits(&entry.workload, &caller.workload)
        && fits(&entry.service_account, &caller.service_account)
        && fits(&entry.principal, &caller.principal)
        && fits(&entry.cluster, &caller.cluster)
}

fn mapped(sources: &TagSources, headers: &Headers<'_>, claims: &mut Claims<'_>) {
    for (tag, header) in &sources.headers {
        let mut values = headers.iter().filter(|(n, _)| *n == header.as_bytes());
        if let Some((_, value)) = values.next() {
            claims.claim(TagOrigin::Headers, tag, value);
            claims.remove(header);
        }
    }
}

fn prefixed(sources: &TagSources, headers: &Headers<'_>, claims: &mut Claims<'_>) {
    if let Some(prefix) = sources.header_prefix.as_deref() {
        named_by_rest(prefix, TagOrigin::HeaderPrefix, headers, claims);
    }
}

/// Every header that starts with `prefix` is a tag named by its rest.
fn named_by_rest(prefix: &str, origin: TagOrigin, headers: &Headers<'_>, claims: &mut Claims<'_>) {
    for (header, value) in headers.iter() {
        let Some(tag) = header.strip_prefix(prefix.as_bytes()) else {
            continue;
        };
        let Ok(header) = std::str::from_utf8(header) else {
            continue;
        };
        match std::str::from_utf8(tag).ok().filter(|tag| is_tag_name(tag)) {
            Some(tag) => claims.claim(origin, standard_tag(tag), value),
            None => claims.refuse(),
        }
        claims.remove(header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tollmesh_wire::PluginConfig;
    use tollmesh_wire::plugin::TAG_VALUE_BYTES_MAX;

    fn sources() -> TagSources {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect()
        };
        TagSources {
            headers: map(&[("team", "x-llm-team")]),
            baggage: map(&[("feature", "app.feature"), ("user", "enduser.id")]),
            defaults: map(&[("environment", "production")]),
            required: vec!["team".to_owned(), "feature".to_owned()],
            ..TagSources::default()
        }
    }

    fn read(pairs: &[(&str, &[u8])]) -> Tagged {
        let headers = pairs.iter().map(|(n, v)| (n.as_bytes(), *v)).collect();
        tags(&sources(), &headers, &Signature::None, &Source::default())
    }

    fn shown(tagged: &Tagged) -> String {
        let pairs = tagged.tags.iter().map(|(k, v)| format!("{k}={v}"));
        pairs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_source_in_its_rank() {
        for (pairs, expected) in [
            (&[][..], "environment=production"),
            (
                &[("x-llm-team", b" red " as &[u8])],
                "environment=production team=red",
            ),
            (
                &[("x-llm-tag-team", b"blue"), ("x-llm-team", b"red")],
                "environment=production team=red",
            ),
            (&[("x-llm-tag-environment", b"test")], "environment=test"),
            (
                &[("x-llm-team", b""), ("x-llm-tag-team", b"blue")],
                "environment=production team=blue",
            ),
            (
                &[("x-llm-team", b"red"), ("x-llm-team", b"blue")],
                "environment=production team=red",
            ),
            (
                &[(
                    "baggage",
                    b"other=1, app.feature = caf%C3%A9%20bar ;p=1,x=y",
                )],
                "environment=production feature=café bar",
            ),
        ] {
            assert_eq!(shown(&read(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn what_carried_a_tag_leaves_the_request() {
        let tagged = read(&[
            ("x-llm-team", b"red"),
            ("x-llm-tag-a", b"\xff"),
            ("x-llm-tag-a", b"2"),
            ("x-llm-tag-", b"nameless"),
            ("baggage", b"a=1,app.feature=f"),
            ("baggage", b"enduser.id=%ff, b=2;q"),
            ("x-other", b"stays"),
        ]);
        assert_eq!(
            shown(&tagged),
            "a=2 environment=production feature=f team=red"
        );
        assert_eq!(tagged.n_refused, 3);
        assert_eq!(
            tagged.edits,
            [
                HeaderEdit::Remove("x-llm-team".into()),
                HeaderEdit::Remove("x-llm-tag-a".into()),
                HeaderEdit::Remove("x-llm-tag-".into()),
                HeaderEdit::Remove("baggage".into()),
                HeaderEdit::Set("baggage".into(), b"a=1, b=2;q".to_vec()),
            ]
        );
        assert_eq!(read(&[("baggage", b"a=1")]).edits, []);
        let lone = read(&[("baggage", b"app.feature=f")]);
        assert_eq!(lone.edits, [HeaderEdit::Remove("baggage".into())]);
    }

    #[test]
    fn signed_headers_and_unstripped_ones_stay() {
        let pairs: [(&[u8], &[u8]); 2] = [(b"x-llm-team", b"red"), (b"x-llm-tag-a", b"1")];
        let headers = pairs.into_iter().collect();
        let signature = Signature::Aws {
            signed_headers: "host;x-llm-team",
        };
        let tagged = tags(&sources(), &headers, &signature, &Source::default());
        assert_eq!(tagged.edits, [HeaderEdit::Remove("x-llm-tag-a".into())]);
        let unstripped = TagSources {
            strip: false,
            ..sources()
        };
        let tagged = tags(&unstripped, &headers, &Signature::None, &Source::default());
        assert_eq!(tagged.edits, []);
        assert_eq!(tagged.tags["team"], "red");
    }

    #[test]
    fn missing_are_the_required_tags_that_are_not_there() {
        let sources = sources();
        let tagged = read(&[("x-llm-team", b"red")]);
        assert_eq!(missing(&sources, &tagged.tags), ["feature"]);
        assert_eq!(missing(&sources, &BTreeMap::new()), ["team", "feature"]);
    }

    #[test]
    fn an_app_is_told_the_way_that_is_open_to_it() {
        let told = |sources: &TagSources, tag: &str| remedy(sources, tag).unwrap_or_default();
        let mut sources = sources();
        assert_eq!(told(&sources, "team"), r#"the request header "x-llm-team""#);
        assert_eq!(
            told(&sources, "tier"),
            r#"the request header "x-llm-tag-tier""#
        );
        sources.header_prefix = None;
        assert_eq!(
            told(&sources, "feature"),
            r#"the baggage member "app.feature""#
        );
        assert_eq!(remedy(&sources, "tier"), None);
        let only = vec![TagOrigin::ByWorkload];
        sources.precedence.insert("team".to_owned(), only);
        assert_eq!(remedy(&sources, "team"), None);
    }

    fn with(tags: &str, pairs: &[(&str, &[u8])], caller: &Source) -> Tagged {
        let json = format!(r#"{{"aggregator":{{"cluster":"t"}},"tags":{tags}}}"#);
        let config = PluginConfig::parse(json.as_bytes()).expect("is right");
        let headers = pairs.iter().map(|(n, v)| (n.as_bytes(), *v)).collect();
        super::tags(&config.tags, &headers, &Signature::None, caller)
    }

    fn caller(namespace: &str, workload: &str) -> Source {
        Source {
            namespace: Some(namespace.to_owned()),
            workload: Some(workload.to_owned()),
            ..Source::default()
        }
    }

    #[test]
    fn precedence_is_what_is_declared_for_the_tag() {
        let request: &[(&str, &[u8])] = &[
            ("x-team", b"header"),
            ("x-llm-tag-team", b"prefix"),
            ("baggage", b"team=baggage"),
            ("helicone-property-team", b"alias"),
        ];
        let sources = |precedence: &str| {
            format!(
                r#"{{"headers":{{"team":"x-team"}},"baggage":{{"team":"team"}},
                    "aliases":["helicone"],"defaults":{{"team":"default"}},
                    "by_workload":[{{"namespace":"*","tags":{{"team":"workload"}}}}],
                    "precedence":{precedence}}}"#
            )
        };
        let caller = caller("shop", "checkout");
        for (precedence, expected) in [
            ("{}", "header"),
            (r#"{"tier":["defaults"]}"#, "header"),
            (r#"{"team":["header_prefix","headers"]}"#, "prefix"),
            (r#"{"team":["baggage","headers"]}"#, "baggage"),
            (r#"{"team":["aliases","baggage"]}"#, "alias"),
            (r#"{"team":["by_workload","headers"]}"#, "workload"),
            (r#"{"*":["defaults"]}"#, "default"),
            (r#"{"*":["defaults"],"team":["baggage"]}"#, "baggage"),
            (r#"{"team":[]}"#, ""),
        ] {
            let tagged = with(&sources(precedence), request, &caller);
            let team = tagged.tags.get("team").map_or("", String::as_str);
            assert_eq!(team, expected, "{precedence}");
            assert_eq!(tagged.n_conflicts, 1, "{precedence}");
            assert_eq!(tagged.edits.len(), 4, "all of them leave: {precedence}");
        }
    }

    #[test]
    fn the_mesh_tags_callers_by_who_they_are() {
        let sources = r#"{"by_workload":[
            {"namespace":"shop","workload":"check*","tags":{"team":"checkout"}},
            {"namespace":"shop","tags":{"team":"shop","tier":"gold"}},
            {"principal":"spiffe://*/sa/cart","tags":{"team":"cart"}}]}"#;
        for (caller, expected) in [
            (caller("shop", "checkout"), "team=checkout tier=gold"),
            (caller("shop", "search"), "team=shop tier=gold"),
            (caller("shopping", "checkout"), ""),
            (Source::default(), ""),
            (
                crate::source::source(
                    &caller("shop", "checkout"),
                    Some("spiffe://cluster.local/ns/web/sa/cart"),
                ),
                "team=cart",
            ),
        ] {
            let tagged = with(sources, &[], &caller);
            assert_eq!(shown(&tagged), expected, "{caller:?}");
            assert_eq!(tagged.n_conflicts, 0);
        }
        let agreeing: &[(&str, &[u8])] = &[("x-llm-tag-tier", b" gold ")];
        let tagged = with(sources, agreeing, &caller("shop", "search"));
        assert_eq!(tagged.n_conflicts, 0);
    }

    #[test]
    fn other_tools_headers_are_read_where_they_are_named() {
        let request: &[(&str, &[u8])] = &[
            ("helicone-auth", b"Bearer secret"),
            ("helicone-user-id", b"u1"),
            ("helicone-session-id", b"s1"),
            ("helicone-property-cost-center", b"cc1"),
            ("helicone-property-app", b"mobile"),
            (
                "x-portkey-metadata",
                br#"{"_user":"u2","environment":"prod","n":7,"on":true,"x":null,"deep":{},"a b":1}"#,
            ),
            ("x-litellm-customer-id", b"acme"),
            ("x-litellm-end-user-id", b"u3"),
            ("x-litellm-spend-logs-metadata", br#"{"project_id":"p1"}"#),
            ("x-litellm-tags", b" jobID:214 ,production, us-east-1,,https://x"),
        ];
        let none = Source::default();
        assert_eq!(with("{}", request, &none), Tagged::default());
        for (alias, expected, n_edits, n_refused) in [
            (
                "helicone",
                "app=mobile cost_center=cc1 session=s1 user=u1",
                4,
                0,
            ),
            ("portkey", "environment=prod n=7 on=true user=u2", 1, 2),
            (
                "litellm",
                "customer=acme jobid=214 project_id=p1 tags=production,us-east-1,https://x user=u3",
                4,
                0,
            ),
        ] {
            let tagged = with(&format!(r#"{{"aliases":[{alias:?}]}}"#), request, &none);
            assert_eq!(shown(&tagged), expected);
            assert_eq!(tagged.edits.len(), n_edits, "{alias}");
            assert_eq!(tagged.n_refused, n_refused, "{alias}");
            let config =
                format!(r#"{{"aggregator":{{"cluster":"t"}},"tags":{{"aliases":[{alias:?}]}}}}"#);
            let config = PluginConfig::parse(config.as_bytes()).expect("is right");
            for (header, _) in request {
                let is_removed = tagged.edits.iter().any(|edit| edit.name() == *header);
                assert_eq!(is_removed, config.tags.reads(header), "{alias}: {header}");
            }
        }
        let both = with(r#"{"aliases":["portkey","helicone"]}"#, request, &none);
        assert_eq!(both.tags["user"], "u2", "in the order that was written");
        for json in [&b"{"[..], b"[]", b"\xff", b"{\"a\":"] {
            let broken: &[(&str, &[u8])] = &[("x-portkey-metadata", json)];
            let tagged = with(r#"{"aliases":["portkey"]}"#, broken, &none);
            assert_eq!((tagged.n_refused, tagged.tags.len()), (1, 0));
            assert_eq!(tagged.edits.len(), 1);
        }
    }

    #[test]
    fn values_that_must_not_be_told_are_hashed() {
        let sources = r#"{"hash":["user"],"hash_shapes":["email","key"],
            "hash_key":"000102030405060708090a0b0c0d0e0f","required":["user"]}"#;
        let long = "x".repeat(300);
        let read = |value: &str| {
            let request: &[(&str, &[u8])] = &[
                ("x-llm-tag-user", value.as_bytes()),
                ("x-llm-tag-customer", value.as_bytes()),
            ];
            with(sources, request, &Source::default()).tags
        };
        let tags = read("alice");
        assert_eq!(tags["user"].len(), 34);
        assert_eq!(tags["customer"], "alice");
        assert_ne!(tags["user"], read("bob")["user"]);
        assert_eq!(tags["user"], read(" alice ")["user"]);
        let address = read("alice@example.com");
        assert_eq!(address["user"], address["customer"]);
        assert!(address["customer"].starts_with("h:"));
        assert!(read("sk-proj-0123456789abcdef")["customer"].starts_with("h:"));
        assert_ne!(read(&long)["user"], read(&format!("{long}y"))["user"]);
    }

    #[test]
    fn ten_thousand_members_and_headers_are_read_in_one_pass() {
        let many: Vec<String> = (0..10_000).map(|i| format!("k{i}={i}")).collect();
        let line = format!("{},app.feature=f,k=1", many.join(","));
        let tagged = read(&[("baggage", line.as_bytes())]);
        assert_eq!(tagged.tags["feature"], "f");
        let rest = format!("{},k=1", many.join(","));
        let expected = HeaderEdit::Set("baggage".into(), rest.into_bytes());
        assert_eq!(tagged.edits[1], expected);

        let names: Vec<String> = (0..10_000).map(|i| format!("x-llm-tag-n{i}")).collect();
        let pairs: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b"v"[..])).collect();
        let tagged = read(&pairs);
        assert_eq!(tagged.edits.len(), 10_000);
        assert_eq!(tagged.n_refused, 10_000 - TAGS_MAX as u64);
    }

    #[test]
    fn line_ends_never_get_into_a_tag() {
        let encoded = &[("baggage", &b"app.feature=a%0d%0ax-evil:%201"[..])];
        let tagged = read(encoded);
        assert_eq!(shown(&tagged), "environment=production");
        assert_eq!(tagged.n_refused, 1);
        let escaped: &[(&str, &[u8])] = &[("x-portkey-metadata", br#"{"team":"a\r\nb"}"#)];
        let tagged = with(r#"{"aliases":["portkey"]}"#, escaped, &Source::default());
        assert_eq!((tagged.tags.len(), tagged.n_refused), (0, 1));
    }

    #[test]
    fn a_tag_cannot_pass_itself_off_as_an_identity() {
        let tags = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            owned.collect()
        };
        let caller = caller("shop", "checkout");
        let both = tags(&[("namespace", "bank"), ("workload", "vault")]);
        assert_eq!(impostors(&both, &caller), 2);
        assert_eq!(impostors(&tags(&[("namespace", "shop")]), &caller), 0);
        assert_eq!(impostors(&both, &Source::default()), 0);
    }

    #[test]
    fn bounds_hold_and_are_counted() {
        let names: Vec<String> = (0..100).map(|i| format!("x-llm-tag-n{i}")).collect();
        let pairs: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b"v"[..])).collect();
        let tagged = read(&pairs);
        assert_eq!(tagged.tags.len(), TAGS_MAX + 1, "and one default");
        assert_eq!(tagged.n_refused, 36);
        assert_eq!(tagged.edits.len(), 100);

        let long = "é".repeat(200);
        let tagged = read(&[("x-llm-team", long.as_bytes())]);
        assert_eq!(tagged.tags["team"].len(), TAG_VALUE_BYTES_MAX);
        assert_eq!(tagged.n_refused, 1);
    }

    proptest! {
        #[test]
        fn any_header_is_harmless(
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 8)
        ) {
            let names = ["x-llm-team", "x-llm-tag-a", "baggage", "baggage", "x-litellm-tags",
                "x-portkey-metadata", "helicone-user-id", "helicone-property-a"];
            let pairs: Vec<(&str, &[u8])> =
                names.iter().zip(&values).map(|(n, v)| (*n, v.as_slice())).collect();
            let sources = r#"{"aliases":["helicone","portkey","litellm"],
                "baggage":{"feature":"f"},"precedence":{"a":["aliases","header_prefix"]},
                "hash_shapes":["email","key"],"hash_key":"000102030405060708090a0b0c0d0e0f"}"#;
            let tagged = with(sources, &pairs, &caller("shop", "checkout"));
            prop_assert!(tagged.tags.values().all(|v| v.len() <= TAG_VALUE_BYTES_MAX));
        }
    }
}
