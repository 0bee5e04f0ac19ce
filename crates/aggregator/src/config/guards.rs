//! `[[guard]]` in `budgets.toml`: fences for single calls, traces and sessions.

use std::collections::BTreeSet;

use rust_decimal::Decimal;
use tollmesh_budget::{Bounds, Enforce, Guard, Limit};

use super::section::{Section, one_of};

/// Guards in one file: each is held against every call that it matches.
const GUARDS_MAX: usize = 100;
/// Bounds of `max_input_tokens`: beyond the longest context nothing would ever be stopped.
const INPUT_TOKENS: (u64, u64) = (1, 10_000_000);
/// Bounds of `max_requests_per_minute` and `max_identical_requests`.
const REQUESTS: (u64, u64) = (1, 1_000_000);

/// Reads all guards. No name may be a budget's.
pub fn read(root: &mut Section<'_>, names: &mut BTreeSet<String>) -> Vec<Guard> {
    let sections = root.tables("guard");
    if sections.len() > GUARDS_MAX {
        root.refuse("guard", format!("more than {GUARDS_MAX} guards; use `per`"));
    }
    let guards = sections
        .into_iter()
        .filter_map(|section| guard(section, names));
    guards.collect()
}

/// One guard; `None` where a mistake left nothing to make it of.
fn guard(mut section: Section<'_>, names: &mut BTreeSet<String>) -> Option<Guard> {
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
        None => section.refuse("name", "missing; give the guard a name"),
    }
    let matches = section.words("match").unwrap_or_default();
    let per = section.texts("per").unwrap_or_default();
    let bounds = bounds(&mut section);
    if bounds.is_empty() && !section.has_refused_below() {
        let expected = "add max_input_tokens, max_request_cost, max_cost, \
                        max_requests_per_minute or max_identical_requests";
        section.refuse("", format!("guards against nothing; {expected}"));
    }
    if bounds.look_beyond_a_call() && per.is_empty() && !section.has_refused("per") {
        section.refuse(
            "per",
            "missing; say what belongs together, such as [\"trace_id\"] or [\"session_id\"]",
        );
    }
    let refuses = section.parsed("do", |text| match text {
        "deny" => Ok(true),
        "warn" => Ok(false),
        _ => Err(format!(
            "unknown action {text:?}; a guard can {}",
            one_of(&["warn", "deny"])
        )),
    });
    let except = section.words("except").unwrap_or_default();
    let enforce = section.parsed("enforce", |text| match text {
        "observe" => Ok(Enforce::Observe),
        "strict" => Ok(Enforce::Strict),
        _ => Err(format!(
            "unknown enforcement {text:?}; expected {}",
            one_of(&["observe", "strict"])
        )),
    });
    let notify = section.texts("notify").unwrap_or_default();
    section.finish();
    Some(Guard {
        name: name?,
        matches,
        per: per.into_iter().collect(),
        bounds,
        refuses: refuses.unwrap_or(true),
        except,
        enforce: enforce.unwrap_or(Enforce::Observe),
        notify,
    })
}

fn bounds(section: &mut Section<'_>) -> Bounds {
    let usd = |text: &str| match text.parse::<Limit>() {
        Ok(Limit::Usd(usd)) => Ok::<Decimal, String>(usd),
        Ok(_) => Err(format!(
            "{text:?} is no amount of money; write such as \"5 USD\""
        )),
        Err(error) => Err(error.to_string()),
    };
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Bounds {
        input_tokens: section.number("max_input_tokens", INPUT_TOKENS, "tokens"),
        request_usd: section.parsed("max_request_cost", usd),
        usd: section.parsed("max_cost", usd),
        requests_per_minute: section
            .number("max_requests_per_minute", REQUESTS, "requests")
            .map(number),
        identical_requests: section
            .number("max_identical_requests", REQUESTS, "requests")
            .map(number),
    }
}

#[cfg(test)]
mod tests {
    use super::super::budgets::parse_all;

    #[test]
    fn a_guard_is_read_whole() {
        let text = r#"
[[guard]]
name = "agents"
match = { namespace = "agents" }
per = ["trace_id"]
max_input_tokens = 200000
max_request_cost = "1 USD"
max_cost = "20 USD"
max_requests_per_minute = 60
max_identical_requests = 5
do = "deny"
except = { priority = "critical" }
enforce = "strict"
notify = ["eng"]
"#;
        let [guard] = parse_all("budgets.toml", text)
            .unwrap()
            .guards
            .try_into()
            .unwrap();
        assert_eq!(guard.bounds.requests_per_minute, Some(60));
        assert_eq!(guard.bounds.usd, Some(20.into()));
        assert!(guard.refuses && guard.per.contains("trace_id"));
    }

    #[test]
    fn each_mistake_is_told() {
        let guard = |more: &str| format!("[[guard]]\nname = \"g\"\n{more}");
        for (text, message) in [
            (
                guard(""),
                "budgets.toml: guard[0]: guards against nothing; add max_input_tokens, \
                 max_request_cost, max_cost, max_requests_per_minute or max_identical_requests",
            ),
            (
                guard("max_cost = \"2 USD\""),
                "budgets.toml: guard[0].per: missing; say what belongs together, such as \
                 [\"trace_id\"] or [\"session_id\"]",
            ),
            (
                guard("max_request_cost = \"5 requests\""),
                "budgets.toml: guard[0].max_request_cost: \"5 requests\" is no amount of money; \
                 write such as \"5 USD\"",
            ),
            (
                guard("max_input_tokens = 0"),
                "budgets.toml: guard[0].max_input_tokens: found 0; expected a number of tokens \
                 from 1 to 10000000",
            ),
            (
                guard("max_input_tokens = 9\ndo = \"header\""),
                "budgets.toml: guard[0].do: unknown action \"header\"; a guard can \"warn\" or \
                 \"deny\"",
            ),
            (
                guard("max_input_tokens = 9\nenforce = \"cached\""),
                "budgets.toml: guard[0].enforce: unknown enforcement \"cached\"; expected \
                 \"observe\" or \"strict\"",
            ),
            (
                format!(
                    "[[budget]]\nname = \"g\"\nlimit = \"1 USD\"\nwindow = \"day\"\n{}",
                    guard("max_input_tokens = 9")
                ),
                "budgets.toml: guard[0].name: \"g\" stands twice; rename one",
            ),
        ] {
            let told = parse_all("budgets.toml", &text).map(|_| ()).unwrap_err();
            assert_eq!(told.to_string(), message);
        }
    }
}
