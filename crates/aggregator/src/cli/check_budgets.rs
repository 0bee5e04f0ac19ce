//! What `tollmesh check` finds in budgets that are well formed: names that nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rust_decimal::Decimal;
use tollmesh_budget::{Action, Enforce, Limit, Tier};
use tollmesh_pricing::Book;
use tollmesh_wire::matching::{MODEL, is_pattern, names_model};
use tollmesh_wire::plugin::{STANDARD_TAGS, TagSources};

use crate::alerts::Receivers;
use crate::budgets::FACTS;
use crate::config::budgets::Limits;
use crate::config::notified;
use crate::config::section::nearest;
use crate::money::PicoUsd;

/// What is wrong in a budgets' file, and what is seldom meant.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What cannot work.
    pub mistakes: Vec<String>,
    /// What is no mistake, yet seldom meant.
    pub warnings: Vec<String>,
}

/// The names that calls may be known by.
pub struct Names(BTreeSet<String>);

impl Names {
    /// The standard names, those that become labels, and those that the filter is told to read.
    pub fn new(labels: &[String], tags: &TagSources) -> Names {
        let fixed = FACTS
            .iter()
            .chain(STANDARD_TAGS)
            .map(|&name| name.to_owned());
        let by_workload = tags.by_workload.iter().flat_map(|entry| entry.tags.keys());
        let configured = tags
            .headers
            .keys()
            .chain(tags.baggage.keys())
            .chain(tags.defaults.keys())
            .chain(tags.precedence.keys())
            .chain(by_workload)
            .chain(&tags.required)
            .chain(labels);
        Names(fixed.chain(configured.cloned()).collect())
    }

    /// Why nobody may ever have that name; `None` where it is known.
    fn unknown(&self, name: &str) -> Option<String> {
        if self.0.contains(name) {
            return None;
        }
        let known: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let near = nearest(name, &known).map(|near| format!("did you mean {near:?}? "));
        Some(format!(
            "no call is known to have {name:?}; {}a tag of your own is known by the filter's \
             configuration (--filter-config) or metrics.labels",
            near.unwrap_or_default()
        ))
    }
}

/// Why no call may ever name its model so, as far as price tables know; `None` where one may.
fn unknown_model(wanted: &BTreeMap<String, String>, book: &Book) -> Option<String> {
    let model = wanted.get(MODEL)?;
    if is_pattern(model) {
        let mut names = book.names();
        let is_met = names.any(|name| names_model(model, &name));
        return (!is_met).then(|| {
            format!("no price table has a model that {model:?} fits; calls that name one count")
        });
    }
    if book.knows(model) || !book.names_of(model).is_empty() {
        return None;
    }
    let known: Vec<String> = book.names().collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let near = nearest(model, &known).map(|near| format!("did you mean {near:?}? "));
    Some(format!(
        "no price table knows a model {model:?}; {}calls that name it so, or a dated snapshot of \
         it, count",
        near.unwrap_or_default()
    ))
}

/// Looks through a file's budgets and guards, and through what these notify.
/// `receivers` and `book` are `None` where nobody knows them.
pub fn look(
    file: &Path,
    limits: &Limits,
    names: &Names,
    receivers: Option<&Receivers>,
    book: Option<&Book>,
) -> Found {
    let file = file.display().to_string();
    let unknown = receivers.map(|receivers| notified::unknown(&file, limits, receivers));
    let mut found = Found {
        mistakes: unknown.unwrap_or_default(),
        warnings: limits.doubts.clone(),
    };
    for policy in &limits.policies {
        let place = format!("{file}: budget {:?}", policy.name);
        let unknown = policy.matches.keys().map(|name| ("match", name));
        let unknown = unknown.chain(policy.per.iter().map(|name| ("per", name)));
        for (key, name) in unknown {
            if let Some(why) = names.unknown(name) {
                found.warnings.push(format!("{place}: {key}: {why}"));
            }
        }
        if matches!(policy.limit, Limit::Usd(usd) if usd < Decimal::new(1, PicoUsd::PLACES)) {
            found.warnings.push(format!(
                "{place}: limit: less than a pico-dollar, the least that is counted: no call fits"
            ));
        }
        for (n, tier) in policy.tiers.iter().enumerate() {
            for model in models_put(tier) {
                if book.is_some_and(|book| !book.knows(model)) {
                    found.warnings.push(format!(
                        "{place}: tiers[{n}].models: no price table has {model:?}: calls for it \
                         would be unpriced, or fail"
                    ));
                }
            }
            for name in tier.except.keys() {
                if let Some(why) = names.unknown(name) {
                    let why = format!("{place}: tiers[{n}].except: {why}");
                    found.warnings.push(why);
                }
            }
        }
        let excepts = policy.tiers.iter().enumerate();
        let excepts = excepts.map(|(n, t)| (format!("tiers[{n}].except"), &t.except));
        for (key, wanted) in [("match".to_owned(), &policy.matches)]
            .into_iter()
            .chain(excepts)
        {
            if let Some(why) = book.and_then(|book| unknown_model(wanted, book)) {
                found.warnings.push(format!("{place}: {key}.model: {why}"));
            }
        }
        if policy.enforce != Enforce::Strict && !policy.tiers.iter().any(acts) {
            found.warnings.push(format!(
                "{place}: nothing is ever done: add tiers, or enforce = \"strict\""
            ));
        }
    }
    for guard in &limits.guards {
        for (key, wanted) in [("match", &guard.matches), ("except", &guard.except)] {
            if let Some(why) = book.and_then(|book| unknown_model(wanted, book)) {
                let place = format!("{file}: guard {:?}", guard.name);
                found.warnings.push(format!("{place}: {key}.model: {why}"));
            }
        }
    }
    found
}

/// The models that a tier has asked for in place of others.
fn models_put(tier: &Tier) -> impl Iterator<Item = &String> {
    let models = match &tier.action {
        Action::Downgrade { models } => Some(models),
        _ => None,
    };
    models.into_iter().flat_map(|models| models.values())
}

/// Whether anything comes of a tier.
fn acts(tier: &Tier) -> bool {
    tier.action != Action::Warn || !tier.notify.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::budgets::parse_all;

    #[test]
    fn names_that_nobody_knows_are_told() {
        let text = r#"
[[budget]]
name = "a"
match = { teem = "x", region = "eu", own = "1", namespace = "shop" }
per = ["user", "squad"]
limit = "1 USD"
window = "day"
tiers = [ { at = "50%", do = "deny", except = { priorty = "critical" }, notify = ["eng"] } ]

[[budget]]
name = "b"
limit = "1 USD"
window = "day"
tiers = [ { at = "50%", do = "warn" } ]

[[budget]]
name = "c"
per = ["user", "user"]
limit = "0.0000000000001 USD"
window = "day"
tiers = [ { at = "50%", do = "downgrade", models = { "gpt-4o" = "gpt-4o-mimi", "o3" = "gpt-4o-mini" } } ]

[[guard]]
name = "g"
max_input_tokens = 5
notify = ["ops"]
"#;
        let book = Book::load(Book::shipped()).unwrap();
        let limits = parse_all("b.toml", text).unwrap();
        let tags = TagSources {
            required: vec!["own".to_owned()],
            ..TagSources::default()
        };
        let names = Names::new(&["region".to_owned()], &tags);
        let found = look(
            Path::new("b.toml"),
            &limits,
            &names,
            Some(&Receivers::default()),
            Some(&book),
        );
        let more = "a tag of your own is known by the filter's configuration (--filter-config) or \
                    metrics.labels";
        let wanted = [
            r#"b.toml: budget "c": per: "user" stands twice; remove one"#.to_owned(),
            format!(
                r#"b.toml: budget "a": match: no call is known to have "teem"; did you mean "team"? {more}"#
            ),
            format!(r#"b.toml: budget "a": per: no call is known to have "squad"; {more}"#),
            format!(
                r#"b.toml: budget "a": tiers[0].except: no call is known to have "priorty"; did you mean "priority"? {more}"#
            ),
            r#"b.toml: budget "b": nothing is ever done: add tiers, or enforce = "strict""#
                .to_owned(),
            r#"b.toml: budget "c": limit: less than a pico-dollar, the least that is counted: no call fits"#
                .to_owned(),
            r#"b.toml: budget "c": tiers[0].models: no price table has "gpt-4o-mimi": calls for it would be unpriced, or fail"#
                .to_owned(),
        ];
        assert_eq!(found.warnings, wanted);
        assert_eq!(
            found.mistakes,
            [
                r#"b.toml: budget "a": tiers[0].notify: unknown receiver "eng"; expected none; receivers are the sections [alerts.NAME] of tollmesh.toml"#,
                r#"b.toml: guard "g": notify: unknown receiver "ops"; expected none; receivers are the sections [alerts.NAME] of tollmesh.toml"#,
            ]
        );
    }

    #[test]
    fn models_that_no_table_knows_are_told() {
        let mut text = String::new();
        let models = [
            "GPT-4o",
            "gpt-4o-2024-08-06",
            "gpt-4o*",
            "openai/gpt-4o",
            "gpt-4p",
            "gtp*",
        ];
        for model in models {
            text.push_str(&format!(
                "[[budget]]\nname = \"{model}\"\nmatch = {{ model = \"{model}\" }}\n\
                 limit = \"1 USD\"\nwindow = \"day\"\nenforce = \"strict\"\n"
            ));
        }
        text.push_str(
            "[[guard]]\nname = \"g\"\nmax_input_tokens = 5\nexcept = { model = \"nobody's\" }\n",
        );
        let limits = parse_all("b.toml", &text).unwrap();
        let names = Names::new(&[], &TagSources::default());
        let book = Book::load(Book::shipped()).unwrap();
        let receivers = Receivers::default();
        let found = look(
            Path::new("b.toml"),
            &limits,
            &names,
            Some(&receivers),
            Some(&book),
        );
        let [misspelt, pattern, guard] = found.warnings.as_slice() else {
            panic!("{found:?}");
        };
        assert!(
            misspelt.starts_with(
                r#"b.toml: budget "gpt-4p": match.model: no price table knows a model "gpt-4p"; did you mean "gpt-4"#
            ),
            "{misspelt}"
        );
        assert_eq!(
            pattern,
            r#"b.toml: budget "gtp*": match.model: no price table has a model that "gtp*" fits; calls that name one count"#
        );
        assert_eq!(
            guard,
            r#"b.toml: guard "g": except.model: no price table knows a model "nobody's"; calls that name it so, or a dated snapshot of it, count"#
        );
    }
}
