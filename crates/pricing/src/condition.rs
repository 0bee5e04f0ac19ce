//! What must be known of a call for a modifier or fee to apply.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::Table;

use crate::fields::{Report, as_texts};
use crate::names::Glob;

/// Facts and the values that are wanted of each; all facts must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition {
    facts: Vec<(String, Vec<Wanted>)>,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// The fact is known, and its value fits.
    Is(Glob),
    /// The fact is known, and its value does not fit.
    IsNot(Glob),
    /// The fact is not known.
    Absent,
}

impl Condition {
    /// Reads `{ fact = "value", other = ["a", "b", "!c", "absent"] }`.
    pub(crate) fn read(table: Table, place: &str, report: &mut Report<'_>) -> Condition {
        let mut condition = Condition::default();
        for (fact, value) in table {
            let texts = as_texts(&value).unwrap_or_default();
            if texts.is_empty() {
                let what = format!("`when.{fact}` must be a text or a list of texts");
                report.add(place, what);
            }
            let wanted = texts.iter().map(|text| match text.strip_prefix('!') {
                Some(not) => Wanted::IsNot(Glob::new(not)),
                None if text == "absent" => Wanted::Absent,
                None => Wanted::Is(Glob::new(text)),
            });
            condition.facts.push((fact, wanted.collect()));
        }
        condition
    }

    /// The names of the facts that it asks for.
    pub(crate) fn facts(&self) -> impl Iterator<Item = &str> {
        self.facts.iter().map(|(fact, _)| fact.as_str())
    }

    pub(crate) fn is_always(&self) -> bool {
        self.facts.is_empty()
    }

    /// Whether every fact has one of the wanted values.
    pub(crate) fn holds(&self, known: &BTreeMap<String, String>) -> bool {
        self.facts.iter().all(|(fact, wanted)| {
            let value = known.get(fact).map(|v| lower(v));
            wanted.iter().any(|w| w.fits(value.as_deref()))
        })
    }
}

/// The text in lower case, copied only where it has to change.
pub(crate) fn lower(text: &str) -> Cow<'_, str> {
    match text
        .bytes()
        .any(|b| b.is_ascii_uppercase() || !b.is_ascii())
    {
        true => Cow::Owned(text.to_lowercase()),
        false => Cow::Borrowed(text),
    }
}

impl Wanted {
    fn fits(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Wanted::Is(glob), Some(value)) => glob.matches(value),
            (Wanted::IsNot(glob), Some(value)) => !glob.matches(value),
            (Wanted::Absent, None) => true,
            (Wanted::Is(_) | Wanted::IsNot(_), None) | (Wanted::Absent, Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_facts_must_hold() {
        let table = r#"geo = ["us", "eu"]
zone = "!global"
size = ["low", "absent"]"#;
        let mut report = Report::new("x.toml");
        let condition = Condition::read(table.parse().unwrap(), "x", &mut report);
        assert!(report.into_problems().is_empty());
        for (facts, want) in [
            (&[("geo", "US"), ("zone", "us-east5")][..], true),
            (
                &[("geo", "us"), ("zone", "us-east5"), ("size", "low")],
                true,
            ),
            (
                &[("geo", "us"), ("zone", "us-east5"), ("size", "high")],
                false,
            ),
            (&[("geo", "us"), ("zone", "global")], false),
            (&[("geo", "us")], false),
            (&[("geo", "jp"), ("zone", "us-east5")], false),
            (&[], false),
        ] {
            let known = facts.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            assert_eq!(condition.holds(&known.collect()), want, "{facts:?}");
        }
    }
}
