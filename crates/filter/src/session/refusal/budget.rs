//! Refusals by budgets, and what the app is told of budgets that let its call pass.

use serde_json::{Value, json};
use tollmesh_usage::Api;
use tollmesh_wire::decision::BudgetEntry;
use tollmesh_wire::{Denied, Timestamp};

use super::{Denial, Shape};

/// Says which budget did something to a call, and what.
pub const BUDGET_HEADER: &str = "x-tollmesh-budget";
/// Names the event of a call, for filters that the answer passes later and for whoever wants to
/// report the outcome of a call.
pub const EVENT_HEADER: &str = "x-tollmesh-event";

/// When asking again may help where nobody knows, seconds: spend leaves a rolling window bit by bit.
const RETRY_SECONDS_DEFAULT: u64 = 60;

/// The refusal of a call by a budget: 429, which every official client raises as its rate-limit
/// error. A call that cannot be read has no event. `x-should-retry` keeps those of OpenAI and Anthropic from trying again at once
/// (<https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py>).
pub fn over_budget(api: Api, denied: &Denied, event_id: Option<&str>, now: Timestamp) -> Denial {
    let shape = Shape::of(api);
    let is_spent = is_spent(&denied.reason);
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("retry-after", retry_after_seconds(denied, now).to_string()),
        ("x-should-retry", "false".to_owned()),
        (BUDGET_HEADER, denial_notice(denied)),
    ];
    headers.extend(event_id.map(|id| (EVENT_HEADER, id.to_owned())));
    if shape == Shape::Aws {
        // Clients in their standard mode try a throttled call again, and not one over its quota.
        let kind = match is_spent {
            true => "ServiceQuotaExceededException",
            false => "ThrottlingException",
        };
        headers.push(("x-amzn-errortype", kind.to_owned()));
    }
    let mut body = shape.rate_limited(&denial_message(denied), is_spent);
    if let Some(body) = body.as_object_mut() {
        body.insert("tollmesh".to_owned(), denial_facts(denied, event_id));
    }
    Denial {
        status: 429,
        details: denial_details(&denied.reason),
        headers,
        body: body.to_string(),
    }
}

/// One member of the header that tells the app what a budget did to its call.
pub fn notice(budget: &BudgetEntry, at: &str, how: &str, action: &str) -> String {
    let mut notice = format!("{}; used={at}; {how}={action}", visible(&budget.budget));
    limit_and_window(&mut notice, &budget.limit, &budget.window);
    notice
}

fn denial_notice(denied: &Denied) -> String {
    let (budget, reason) = (visible(&denied.budget), visible(&denied.reason));
    let mut notice = format!("{budget}; reason={reason}");
    limit_and_window(&mut notice, &denied.limit, &denied.window);
    if let Some(reset_at) = denied.reset_at {
        notice.push_str(&format!("; reset={reset_at}"));
    }
    notice
}

fn limit_and_window(notice: &mut String, limit: &str, window: &str) {
    for (name, value) in [("limit", limit), ("window", window)] {
        if !value.is_empty() {
            notice.push_str(&format!("; {name}=\"{}\"", visible(value)));
        }
    }
}

/// What a header may hold, and what separates nothing in ours.
fn visible(text: &str) -> String {
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !matches!(c, ';' | ',' | '"');
    text.chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect()
}

/// Whether the money is gone until the window ends, so that trying again soon is in vain.
fn is_spent(reason: &str) -> bool {
    matches!(
        reason,
        "budget_exceeded" | "shed" | "guard_input" | "guard_cost"
    )
}

/// For the access log, where a word of a newer aggregator might not be one.
fn denial_details(reason: &str) -> &'static str {
    match reason {
        "budget_exceeded" => "tollmesh_budget_exceeded",
        "budget_rebuilding" => "tollmesh_budget_rebuilding",
        "budget_unverifiable" => "tollmesh_budget_unverifiable",
        "throttled" => "tollmesh_throttled",
        "shed" => "tollmesh_shed",
        "guard_input" => "tollmesh_guard_input",
        "guard_cost" => "tollmesh_guard_cost",
        "guard_rate" => "tollmesh_guard_rate",
        "guard_loop" => "tollmesh_guard_loop",
        _ => "tollmesh_denied",
    }
}

fn retry_after_seconds(denied: &Denied, now: Timestamp) -> u64 {
    let left_ms = denied.reset_at.map(|at| at.as_unix_ms() - now.as_unix_ms());
    let left_ms = left_ms.map(|ms| u64::try_from(ms).unwrap_or(0));
    let until_reset = left_ms.map(|ms| ms.div_ceil(1_000));
    let seconds = denied.retry_after_seconds.or(until_reset);
    seconds.unwrap_or(RETRY_SECONDS_DEFAULT).max(1)
}

fn denial_message(denied: &Denied) -> String {
    let name = &denied.budget;
    let what = match denied.reason.as_str() {
        "budget_exceeded" if denied.is_short => {
            format!("the budget {name:?} has less left than this call may need")
        }
        "budget_exceeded" => format!("the budget {name:?} is spent"),
        "budget_rebuilding" => {
            format!("the budget {name:?} cannot be verified while its store is being rebuilt")
        }
        "budget_unverifiable" if name.is_empty() => {
            "no budget is known yet, and calls that cannot be verified are refused".to_owned()
        }
        "budget_unverifiable" => {
            format!("the budget {name:?} cannot be verified now, and refuses calls meanwhile")
        }
        "throttled" => format!("the budget {name:?} lets only so many calls a second pass now"),
        "shed" => format!("the budget {name:?} is nearly spent, and lets critical calls pass only"),
        reason => format!("the rule {name:?} refuses this call ({reason})"),
    };
    let mut facts = Vec::new();
    if !denied.limit.is_empty() {
        facts.push(format!("limit {}", denied.limit));
    }
    if !denied.window.is_empty() {
        facts.push(format!("window {}", denied.window));
    }
    if let Some(reset_at) = denied.reset_at {
        facts.push(format!("resets at {reset_at}"));
    }
    match facts.is_empty() {
        true => what,
        false => format!("{what} ({})", facts.join(", ")),
    }
}

fn denial_facts(denied: &Denied, event_id: Option<&str>) -> Value {
    json!({
        "budget": denied.budget, "reason": denied.reason, "limit": denied.limit,
        "window": denied.window, "reset_at": denied.reset_at, "event_id": event_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_a_budget_names_it_its_limit_and_its_reset() {
        let denied = Denied {
            budget: "checkout; daily".to_owned(),
            reason: "budget_exceeded".to_owned(),
            reset_at: Timestamp::parse("2026-11-23T00:00:00Z"),
            limit: "200 USD".to_owned(),
            window: "day".to_owned(),
            ..Denied::default()
        };
        let now = Timestamp::parse("2026-11-22T23:59:58.001Z").expect("is a time");
        for (api, message, code) in [
            (
                Api::OpenAiChat,
                "/error/message",
                Some(("/error/code", "insufficient_quota")),
            ),
            (Api::OpenAiResponses, "/error/message", None),
            (
                Api::AnthropicMessages,
                "/error/message",
                Some(("/error/type", "rate_limit_error")),
            ),
            (
                Api::GeminiGenerate,
                "/error/message",
                Some(("/error/status", "RESOURCE_EXHAUSTED")),
            ),
            (Api::BedrockConverse, "/message", None),
            (Api::CohereChat, "/message", None),
            (Api::OllamaChat, "/error", None),
            (Api::WatsonxGenerate, "/errors/0/message", None),
            (
                Api::DashScopeGenerate,
                "/message",
                Some(("/code", "Throttling.AllocationQuota")),
            ),
        ] {
            let denial = over_budget(api, &denied, Some("vm-1"), now);
            let body: Value = serde_json::from_str(&denial.body).expect("is JSON");
            let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
            assert_eq!(
                text(message),
                Some(
                    "the budget \"checkout; daily\" is spent (limit 200 USD, window day, \
                     resets at 2026-11-23T00:00:00.000Z)"
                ),
                "{}",
                api.name()
            );
            if let Some((pointer, code)) = code {
                assert_eq!(text(pointer), Some(code), "{}", api.name());
            }
            assert_eq!(text("/tollmesh/budget"), Some("checkout; daily"));
            assert_eq!(
                (denial.status, denial.details),
                (429, "tollmesh_budget_exceeded")
            );
            let header = |name| denial.headers.iter().find(|(n, _)| *n == name);
            assert_eq!(header("retry-after").map(|(_, v)| v.as_str()), Some("2"));
            assert_eq!(
                header("x-should-retry").map(|(_, v)| v.as_str()),
                Some("false")
            );
            let expected = "checkout_ daily; reason=budget_exceeded; limit=\"200 USD\"; \
                            window=\"day\"; reset=2026-11-23T00:00:00.000Z";
            assert_eq!(
                header("x-tollmesh-budget").map(|(_, v)| v.as_str()),
                Some(expected)
            );
        }
    }

    #[test]
    fn a_budget_that_is_not_spent_is_not_said_to_be() {
        let denied = |reason: &str| Denied {
            budget: "b".to_owned(),
            reason: reason.to_owned(),
            is_short: true,
            limit: "1000 tokens".to_owned(),
            ..Denied::default()
        };
        let short = denied("budget_exceeded");
        let expected = "the budget \"b\" has less left than this call may need (limit 1000 tokens)";
        assert_eq!(denial_message(&short), expected);
        let spent = Denied {
            is_short: false,
            ..short.clone()
        };
        let now = Timestamp::default();
        let (short, spent) = (
            over_budget(Api::BedrockConverse, &short, None, now),
            over_budget(Api::BedrockConverse, &spent, None, now),
        );
        assert_eq!(short.headers, spent.headers, "programs see the same");
        assert_eq!(short.details, spent.details);
    }

    #[test]
    fn when_to_come_back() {
        let now = Timestamp::from_unix_ms(1_000_000);
        let at = |ms| Some(Timestamp::from_unix_ms(ms));
        for (retry_after_seconds, reset_at, expected) in [
            (None, at(1_000_001), 1),
            (None, at(1_002_000), 2),
            (None, at(0), 1),
            (Some(7), at(1_002_000), 7),
            (Some(0), None, 1),
            (None, None, 60),
        ] {
            let denied = Denied {
                retry_after_seconds,
                reset_at,
                ..Denied::default()
            };
            assert_eq!(super::retry_after_seconds(&denied, now), expected);
        }
    }
}
