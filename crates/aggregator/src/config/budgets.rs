//! `budgets.toml`: limits on spend, as policies.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use tollmesh_budget::estimate::OUTPUT_TOKENS_DEFAULT;
use tollmesh_budget::policy::MAX_STREAM_DEFAULT;
use tollmesh_budget::{Action, Enforce, Guard, Limit, OnUnavailable, Policy, Tier, Window};

use super::problem::{Problem, Problems};
use super::section::{Section, Sink, one_of};
use super::{guards, limits};

/// Budgets in one file; more would be made by hand by nobody.
const BUDGETS_MAX: usize = 10_000;
/// Bytes of such a file, twice what so many budgets have; more is a wrong file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bounds of `max_tokens` and `requests_per_second` at a tier.
const WHOLE: (u64, u64) = (1, u32::MAX as u64);

/// Reads the budgets of that file, or tells every mistake in it.
pub fn load(file: &Path) -> Result<Vec<Policy>, Problems> {
    Ok(load_all(file)?.policies)
}

/// Reads that file whole, or tells every mistake in it.
pub fn load_all(file: &Path) -> Result<Limits, Problems> {
    let name = file.display().to_string();
    match read_text(file) {
        Ok(text) => parse_all(&name, &text),
        Err(what) => Err(Problems(vec![Problem {
            file: name,
            key: String::new(),
            what,
        }])),
    }
}

/// The text of that file, or why it cannot be had.
pub fn read_text(file: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}; check the path");
    let about = fs::metadata(file).map_err(unreadable)?;
    // Who opens a pipe waits for whoever writes it, and a device may have no end.
    if !about.is_file() {
        return Err("is no regular file; name one that holds budgets".into());
    }
    let mut text = String::new();
    let file = fs::File::open(file).map_err(unreadable)?;
    let n_bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    match n_bytes.map_err(unreadable)? as u64 > FILE_BYTES_MAX {
        true => Err(format!(
            "is larger than {FILE_BYTES_MAX} bytes; name a file that holds budgets"
        )),
        false => Ok(text),
    }
}

/// All that such a file says.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Its budgets.
    pub policies: Vec<Policy>,
    /// Its guards.
    pub guards: Vec<Guard>,
    /// Whether it says so of budgets or guards, and be it that there are none: a file that was cut,
    /// or is being saved, says nothing.
    pub is_deliberate: bool,
    /// What is no mistake, yet seldom meant, each with its place.
    pub doubts: Vec<String>,
}

impl Limits {
    /// The names of its budgets and guards.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let budgets = self.policies.iter().map(|policy| policy.name.as_str());
        budgets.chain(self.guards.iter().map(|guard| guard.name.as_str()))
    }
}

/// Reads the budgets of that text; `file` is its name in messages.
pub fn parse(file: &str, text: &str) -> Result<Vec<Policy>, Problems> {
    Ok(parse_all(file, text)?.policies)
}

/// Reads that text whole; `file` is its name in messages.
pub fn parse_all(file: &str, text: &str) -> Result<Limits, Problems> {
    let sink = Sink::new(file);
    let limits = match text.parse::<toml::Table>() {
        Ok(table) => {
            let is_deliberate = ["budget", "guard"]
                .iter()
                .any(|key| table.contains_key(*key));
            Limits {
                is_deliberate,
                ..read(Section::root(&sink, table))
            }
        }
        Err(error) => {
            sink.refuse("", super::not_toml(text, &error));
            Limits::default()
        }
    };
    match sink.into_problems() {
        problems if problems.is_empty() => Ok(limits),
        problems => Err(Problems(problems)),
    }
}

fn read(mut root: Section<'_>) -> Limits {
    let sections = root.tables("budget");
    if sections.len() > BUDGETS_MAX {
        root.refuse(
            "budget",
            format!("more than {BUDGETS_MAX} budgets; use `per`"),
        );
    }
    let mut names = BTreeSet::new();
    let (mut policies, mut twice) = (Vec::new(), Vec::new());
    for section in sections {
        let Some(policy) = policy(section, &mut names, &mut twice) else {
            continue;
        };
        policies.push(policy);
    }
    let guards = guards::read(&mut root, &mut names);
    let file = root.file().to_owned();
    root.finish();
    let twice = twice.iter().map(|(budget, key)| {
        format!("{file}: budget {budget:?}: per: {key:?} stands twice; remove one")
    });
    Limits {
        policies,
        guards,
        is_deliberate: false,
        doubts: twice.collect(),
    }
}

/// One budget; `None` where a mistake left nothing to make it of. `twice` gets the keys that its
/// `per` names again, with its name.
fn policy(
    mut section: Section<'_>,
    names: &mut BTreeSet<String>,
    twice: &mut Vec<(String, String)>,
) -> Option<Policy> {
    let name = section.text("name");
    match &name {
        Some(name) if name.is_empty() => section.refuse("name", "empty; give it a name"),
        Some(name) if name.contains(char::is_control) => section.refuse(
            "name",
            format!("{name:?} has control characters; remove them"),
        ),
        Some(name) if !names.insert(name.clone()) => {
            section.refuse("name", format!("{name:?} stands twice; rename one"));
        }
        Some(_) => {}
        None => section.refuse("name", "missing; give the budget a name"),
    }
    let matches = section.words("match").unwrap_or_default();
    let per = section.texts("per").unwrap_or_default();
    for (n, key) in per.iter().enumerate() {
        if per.iter().take(n).any(|other| other == key) {
            twice.push((name.clone().unwrap_or_default(), key.clone()));
        }
    }
    let limit = section.parsed("limit", parsed::<Limit>);
    let window = section.parsed("window", parsed::<Window>);
    for (key, is_missing) in [("limit", limit.is_none()), ("window", window.is_none())] {
        if is_missing && !section.has_refused(key) {
            section.refuse(key, "missing; a budget has a limit and a window");
        }
    }
    let zone = section.parsed("timezone", |text| {
        TimeZone::get(text).map_err(|_| {
            format!("unknown time zone {text:?}; expected a name such as \"Europe/Madrid\"")
        })
    });
    let enforce = section.parsed("enforce", enforce);
    let on_unavailable = on_unavailable(&mut section, limit);
    let max_stream = section.parsed("max_stream", limits::max_stream);
    let output = section.number("estimate_output_tokens", WHOLE, "tokens");
    let tiers = section.tables("tiers").into_iter().filter_map(tier);
    let tiers = tiers.collect();
    let policy = name
        .zip(limit)
        .zip(window)
        .map(|((name, limit), window)| Policy {
            name,
            matches,
            per: per.into_iter().collect(),
            limit,
            window,
            zone: zone.unwrap_or(TimeZone::UTC),
            enforce: enforce.unwrap_or_default(),
            on_unavailable,
            tiers,
            max_stream: max_stream.unwrap_or(MAX_STREAM_DEFAULT),
            estimate_output_tokens: output.unwrap_or(OUTPUT_TOKENS_DEFAULT),
            models: Arc::default(),
        });
    if let Some(Err(mistake)) = policy.as_ref().map(Policy::check) {
        section.refuse("", mistake.to_string());
    }
    section.finish();
    policy
}

fn parsed<T: std::str::FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn enforce(text: &str) -> Result<Enforce, String> {
    match text {
        "observe" => Ok(Enforce::Observe),
        "cached" => Ok(Enforce::Cached),
        "strict" => Ok(Enforce::Strict),
        _ => Err(unknown(
            "enforcement",
            text,
            &["observe", "cached", "strict"],
        )),
    }
}

fn on_unavailable(section: &mut Section<'_>, limit: Option<Limit>) -> OnUnavailable {
    let words = ["closed", "open", "open_capped"];
    let word = section.parsed("on_unavailable", |text| match words.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(unknown("word", text, &words)),
    });
    let allowance = section.parsed("offline_allowance", |text| {
        let allowance = parsed::<Limit>(text)?;
        match limit.map(|limit| limit.unit()) {
            Some(unit) if unit != allowance.unit() => Err(format!(
                "{text:?} is not in the limit's unit; write an amount of {unit}"
            )),
            _ => Ok(allowance.amount()),
        }
    });
    match (word.as_deref(), allowance) {
        (Some("closed"), _) => OnUnavailable::Closed,
        (Some("open_capped"), Some(allowance)) => OnUnavailable::OpenCapped { allowance },
        (Some("open_capped"), None) => {
            if !section.has_refused("offline_allowance") {
                section.refuse("offline_allowance", "missing; \"open_capped\" needs one");
            }
            OnUnavailable::Open
        }
        _ => OnUnavailable::Open,
    }
}

/// One tier; `None` where a mistake left nothing to make it of.
fn tier(mut section: Section<'_>) -> Option<Tier> {
    let at = section.parsed("at", share);
    let word = section.text("do");
    let models = section.words("models");
    let max_tokens = section.number("max_tokens", WHOLE, "tokens");
    let per_second = section.number("requests_per_second", WHOLE, "requests a second");
    let action = match word.as_deref() {
        Some("warn") => Some(Action::Warn),
        Some("header") => Some(Action::Header),
        Some("shed") => Some(Action::Shed),
        Some("deny") => Some(Action::Deny),
        Some("downgrade") => models.map(|models| Action::Downgrade { models }),
        Some("cap_output") => max_tokens.map(|max_tokens| Action::CapOutput { max_tokens }),
        Some("throttle") => per_second.map(|n| Action::Throttle {
            requests_per_second: u32::try_from(n).unwrap_or(u32::MAX),
        }),
        _ => None,
    };
    if action.is_none() {
        section.refuse("do", undone(word.as_deref()));
    }
    if at.is_none() && !section.has_refused("at") {
        section.refuse("at", "missing; write a share of the limit such as \"85%\"");
    }
    let except = section.words("except").unwrap_or_default();
    let notify = section.texts("notify").unwrap_or_default();
    section.finish();
    Some(Tier {
        at: at?,
        action: action?,
        except,
        notify,
    })
}

/// Why nothing can be done at a tier.
fn undone(word: Option<&str>) -> String {
    let words = [
        "warn",
        "header",
        "cap_output",
        "downgrade",
        "throttle",
        "shed",
        "deny",
    ];
    match word {
        None => format!("missing; expected {}", one_of(&words)),
        Some("downgrade") => "\"downgrade\" needs models = { \"dear\" = \"cheap\" }".to_owned(),
        Some("cap_output") => "\"cap_output\" needs max_tokens".to_owned(),
        Some("throttle") => "\"throttle\" needs requests_per_second".to_owned(),
        Some(other) => unknown("action", other, &words),
    }
}

fn unknown(what: &str, text: &str, words: &[&str]) -> String {
    format!("unknown {what} {text:?}; expected {}", one_of(words))
}

/// `85%` as 0.85.
fn share(text: &str) -> Result<Decimal, String> {
    let number = text.strip_suffix('%').map(str::trim);
    let number = number.and_then(|digits| Decimal::from_str_exact(digits).ok());
    number
        .and_then(|percent| percent.checked_div(Decimal::ONE_HUNDRED))
        .map(|share| share.normalize())
        .ok_or_else(|| format!("{text:?} is no share of the limit; write such as \"85%\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE_BUDGET: &str = r#"
[[budget]]
name = "checkout-daily"
match = { team = "checkout", environment = "production" }
per = ["user"]
limit = "200 USD"
window = "day"
timezone = "Europe/Madrid"
enforce = "strict"
on_unavailable = "open_capped"
offline_allowance = "5 USD"
tiers = [ { at = "60%", do = "warn", notify = ["eng"] },
          { at = "85%", do = "downgrade", models = { "gpt-4o" = "gpt-4o-mini" } },
          { at = "100%", do = "deny", except = { priority = "critical" } } ]

[[budget]]
name = "all"
limit = "5M tokens"
window = "rolling 24h"
"#;

    #[test]
    fn budgets_are_read_whole() {
        let policies = parse("budgets.toml", WHOLE_BUDGET).unwrap();
        let [first, second] = policies.as_slice() else {
            panic!("{policies:?}");
        };
        assert_eq!(first.matches["team"], "checkout");
        assert_eq!(first.per.iter().collect::<Vec<_>>(), ["user"]);
        assert_eq!(first.zone.iana_name(), Some("Europe/Madrid"));
        assert_eq!(first.tiers[1].at.to_string(), "0.85");
        assert_eq!(first.enforce, Enforce::Strict);
        let allowance = Decimal::from(5);
        assert_eq!(
            first.on_unavailable,
            OnUnavailable::OpenCapped { allowance }
        );
        assert_eq!(second.limit, Limit::Tokens(5_000_000));
        assert_eq!(second.window, Window::Rolling { hours: 24 });
        assert_eq!(second.zone, TimeZone::UTC);
    }

    #[test]
    fn each_mistake_is_told() {
        let told = |text: &str| {
            let problems = parse("budgets.toml", text).unwrap_err();
            problems.to_string()
        };
        let budget = |more: &str| {
            format!("[[budget]]\nname = \"a\"\nlimit = \"1 USD\"\nwindow = \"day\"\n{more}")
        };
        for (text, message) in [
            (
                "[[budget]]\nname = \"a\"".to_owned(),
                "budgets.toml: budget[0].limit: missing; a budget has a limit and a window\n\
                 budgets.toml: budget[0].window: missing; a budget has a limit and a window",
            ),
            (
                format!("{}{}", budget(""), budget("")),
                "budgets.toml: budget[1].name: \"a\" stands twice; rename one",
            ),
            (
                budget("timezone = \"Mars\""),
                "budgets.toml: budget[0].timezone: unknown time zone \"Mars\"; expected a name \
                 such as \"Europe/Madrid\"",
            ),
            (
                budget("enforce = \"hard\""),
                "budgets.toml: budget[0].enforce: unknown enforcement \"hard\"; expected \
                 \"observe\", \"cached\" or \"strict\"",
            ),
            (
                budget("tiers = [ { at = \"half\", do = \"warn\" } ]"),
                "budgets.toml: budget[0].tiers[0].at: \"half\" is no share of the limit; write \
                 such as \"85%\"",
            ),
            (
                budget(
                    "tiers = [ { at = \"90%\", do = \"warn\" }, { at = \"80%\", do = \"deny\" } ]",
                ),
                "budgets.toml: budget[0]: tiers[1].at: 0.8 is not above the tier before it; list \
                 tiers in rising order",
            ),
            (
                budget("tiers = [ { at = \"90%\", do = \"throttle\" } ]"),
                "budgets.toml: budget[0].tiers[0].do: \"throttle\" needs requests_per_second",
            ),
            (
                budget("on_unavailable = \"open_capped\""),
                "budgets.toml: budget[0].offline_allowance: missing; \"open_capped\" needs one",
            ),
            (
                budget("limits = 1"),
                "budgets.toml: budget[0].limits: unknown key; did you mean \"limit\"? expected \
                 \"name\", \"match\", \"per\", \"limit\", \"window\", \"timezone\", \"enforce\", \
                 \"on_unavailable\", \"offline_allowance\", \"max_stream\", \
                 \"estimate_output_tokens\" or \"tiers\"",
            ),
            (
                budget("").replace("\"a\"", "\"a\\u001b[2K\""),
                "budgets.toml: budget[0].name: \"a\\u{1b}[2K\" has control characters; remove them",
            ),
            (
                "budget = 1".to_owned(),
                "budgets.toml: budget: found 1; expected a list of tables",
            ),
        ] {
            assert_eq!(told(&text), message);
        }
    }
}
