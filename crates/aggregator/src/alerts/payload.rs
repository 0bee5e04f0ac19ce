//! The body that each kind of receiver asks for.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::alerts::alert::{Alert, Kind, Severity, key_text, shortened};
use crate::alerts::receiver::ChannelKind;

/// Characters in a header block of Slack
/// (<https://docs.slack.dev/reference/block-kit/blocks/header-block>).
const SLACK_HEADER_CHARS_MAX: usize = 150;
/// Characters in a field of a section block of Slack
/// (<https://docs.slack.dev/reference/block-kit/blocks/section-block>).
const SLACK_FIELD_CHARS_MAX: usize = 2_000;
/// Characters in `payload.summary` of PagerDuty
/// (<https://developer.pagerduty.com/docs/send-alert-event>).
const PAGERDUTY_SUMMARY_CHARS_MAX: usize = 1_024;

/// The body for that kind of receiver. `secret` is PagerDuty's routing key; other kinds have their
/// secrets in the URL or a header.
pub fn body(kind: ChannelKind, alert: &Alert, secret: &str) -> Value {
    match kind {
        ChannelKind::Webhook => json!(alert),
        ChannelKind::Slack => slack(alert),
        ChannelKind::Teams => teams(alert),
        ChannelKind::PagerDuty => pagerduty(alert, secret),
        ChannelKind::Alertmanager => alertmanager(alert),
    }
}

/// What stands below the headline, by name.
fn facts(alert: &Alert) -> Vec<(&'static str, String)> {
    let unit = &alert.unit;
    let name = match alert.kind {
        Kind::BudgetTier => "Budget",
        Kind::Guard => "Guard",
    };
    let mut facts = vec![(name, alert.budget.clone())];
    if !alert.key.is_empty() {
        facts.push(("For", key_text(&alert.key)));
    }
    match alert.kind {
        Kind::BudgetTier => {
            let limit = format!("{} {unit} per {}", alert.limit, alert.window.kind);
            facts.push(("Spent", format!("{} {unit}", alert.spent)));
            facts.push(("Limit", limit));
        }
        Kind::Guard => {
            facts.push(("Found", alert.spent.clone()));
            facts.push(("Limit", alert.limit.clone()));
        }
    }
    if let Some(projected) = &alert.projected {
        facts.push(("Going on like this", format!("{projected} {unit}")));
    }
    let action = format!("{} (enforce = {:?})", alert.action, alert.enforce);
    facts.push(("Action", action));
    facts.push(("Until", alert.window.end.to_string()));
    facts
}

/// An incoming webhook's message
/// (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>). Blocks are plain
/// text, in which nothing is a link or a mention; `text` is what notifications show.
fn slack(alert: &Alert) -> Value {
    let plain = |text: &str, chars_max: usize| json!({ "type": "plain_text", "text": shortened(text, chars_max), "emoji": false });
    let headline = match alert.kind {
        Kind::BudgetTier => format!("{}: {} of the budget", alert.budget, alert.tier),
        Kind::Guard => format!("{}: {}", alert.budget, alert.spent),
    };
    let fields: Vec<Value> = facts(alert)
        .iter()
        .map(|(name, value)| plain(&format!("{name}: {value}"), SLACK_FIELD_CHARS_MAX))
        .collect();
    json!({
        "text": slack_escaped(&alert.summary),
        "blocks": [
            { "type": "header", "text": plain(&headline, SLACK_HEADER_CHARS_MAX) },
            { "type": "section", "text": plain(&alert.summary, SLACK_FIELD_CHARS_MAX) },
            { "type": "section", "fields": fields },
        ],
    })
}

/// The three characters that Slack's own markup is made of
/// (<https://docs.slack.dev/messaging/formatting-message-text>).
fn slack_escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

/// A message with one Adaptive Card, as the trigger "When a Teams webhook request is received"
/// of Workflows takes it (<https://learn.microsoft.com/en-us/connectors/teams/#microsoft-teams-webhook>).
/// Text runs know no Markdown, so that no value of a tag becomes a link
/// (<https://adaptivecards.io/explorer/TextRun.html>).
fn teams(alert: &Alert) -> Value {
    let run = |text: &str, more: Value| {
        let mut run = json!({ "type": "TextRun", "text": text });
        if let (Some(run), Value::Object(more)) = (run.as_object_mut(), more) {
            run.extend(more);
        }
        run
    };
    let line = |runs: Vec<Value>| json!({ "type": "RichTextBlock", "inlines": runs });
    let color = match alert.severity {
        Severity::Info => "accent",
        Severity::Warning => "warning",
        Severity::Critical => "attention",
    };
    let headline = json!({ "weight": "bolder", "size": "medium", "color": color });
    let mut body = vec![line(vec![run(&alert.summary, headline)])];
    for (name, value) in facts(alert) {
        let name = run(&format!("{name}: "), json!({ "weight": "bolder" }));
        body.push(line(vec![name, run(&value, json!({}))]));
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": body,
            },
        }],
    })
}

/// A trigger event (<https://developer.pagerduty.com/docs/send-alert-event>). What comes twice has
/// the same `dedup_key`, and is one incident.
fn pagerduty(alert: &Alert, routing_key: &str) -> Value {
    let severity = match alert.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": format!("tollmesh-{}", alert.id),
        "client": "tollmesh",
        "payload": {
            "summary": shortened(&alert.summary, PAGERDUTY_SUMMARY_CHARS_MAX),
            "source": "tollmesh",
            "severity": severity,
            "timestamp": alert.time,
            "component": alert.budget,
            "group": key_text(&alert.key),
            "class": alert.kind,
            "custom_details": alert,
        },
    })
}

/// A list of one alert
/// (<https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>,
/// `postableAlerts`). It ends with the window. Names of labels are Prometheus'
/// (<https://prometheus.io/docs/concepts/data_model/#metric-names-and-labels>).
fn alertmanager(alert: &Alert) -> Value {
    let alertname = match alert.kind {
        Kind::BudgetTier => "TollmeshBudgetTier",
        Kind::Guard => "TollmeshGuard",
    };
    let mut labels = BTreeMap::from([
        ("alertname".to_owned(), json!(alertname)),
        ("severity".to_owned(), json!(alert.severity)),
        ("budget".to_owned(), json!(alert.budget)),
        ("tier".to_owned(), json!(alert.tier)),
    ]);
    for (prefix, pairs) in [("match_", &alert.matches), ("key_", &alert.key)] {
        let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
        labels.extend(pairs.map(|(name, value)| (label_name(prefix, name), json!(value))));
    }
    let mut annotations = Map::new();
    annotations.insert("summary".to_owned(), json!(alert.summary));
    for (name, value) in facts(alert) {
        annotations.insert(name.to_lowercase().replace(' ', "_"), json!(value));
    }
    json!([{
        "labels": labels,
        "annotations": annotations,
        "startsAt": alert.time,
        "endsAt": alert.window.end,
    }])
}

fn label_name(prefix: &str, name: &str) -> String {
    let word = name.chars().map(|c| match c.is_ascii_alphanumeric() {
        true => c,
        false => '_',
    });
    prefix.chars().chain(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::alert::tests::reached;
    use tollmesh_wire::Timestamp;

    fn alert() -> Alert {
        reached().alert(Timestamp::parse("2026-11-22T17:05:00Z").unwrap())
    }

    #[test]
    fn plain_json() {
        let body = body(ChannelKind::Webhook, &alert(), "");
        insta::assert_json_snapshot!(body);
        assert_eq!(serde_json::from_value::<Alert>(body).unwrap(), alert());
    }

    #[test]
    fn slack_shows_tags_as_text_within_its_bounds() {
        let body = body(ChannelKind::Slack, &alert(), "");
        let text = body["text"].as_str().unwrap();
        assert!(text.contains("ann &lt;!channel&gt;") && !text.contains('<'));
        let blocks = body["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50);
        let texts = |block: &Value| {
            let fields = block["fields"].as_array().cloned().unwrap_or_default();
            let text = block.get("text").cloned();
            fields.into_iter().chain(text).collect::<Vec<_>>()
        };
        for block in blocks {
            let chars_max = match block["type"].as_str().unwrap() {
                "header" => SLACK_HEADER_CHARS_MAX,
                "section" => SLACK_FIELD_CHARS_MAX,
                other => panic!("{other}"),
            };
            let all = texts(block);
            assert!((1..=11).contains(&all.len()));
            for text in all {
                assert_eq!(text["type"], "plain_text");
                let n = text["text"].as_str().unwrap().chars().count();
                assert!((1..=chars_max).contains(&n), "{text}");
            }
        }
    }

    #[test]
    fn teams_gets_one_adaptive_card_without_markdown() {
        let body = body(ChannelKind::Teams, &alert(), "");
        assert_eq!(body["type"], "message");
        let [attachment] = body["attachments"].as_array().unwrap().as_slice() else {
            panic!("{body}");
        };
        let content_type = "application/vnd.microsoft.card.adaptive";
        assert_eq!(attachment["contentType"], content_type);
        let card = &attachment["content"];
        assert_eq!(
            (&card["type"], &card["version"]),
            (&json!("AdaptiveCard"), &json!("1.4"))
        );
        for block in card["body"].as_array().unwrap() {
            assert_eq!(block["type"], "RichTextBlock");
            for run in block["inlines"].as_array().unwrap() {
                assert_eq!(run["type"], "TextRun");
                assert!(!run["text"].as_str().unwrap().is_empty());
            }
        }
        // Teams takes messages of 28 KB at most.
        assert!(body.to_string().len() < 28_000);
    }

    #[test]
    fn pagerduty_gets_a_trigger_event() {
        let mut alert = alert();
        alert.summary = "x".repeat(5_000);
        let body = body(
            ChannelKind::PagerDuty,
            &alert,
            "0123456789abcdef0123456789abcdef",
        );
        assert_eq!(body["routing_key"], "0123456789abcdef0123456789abcdef");
        assert_eq!(body["event_action"], "trigger");
        let dedup_key = body["dedup_key"].as_str().unwrap();
        assert_eq!(dedup_key, format!("tollmesh-{}", alert.id));
        assert!(dedup_key.len() <= 255);
        let payload = &body["payload"];
        assert_eq!(payload["summary"].as_str().unwrap().chars().count(), 1_024);
        assert_eq!(payload["severity"], "warning");
        assert_eq!(payload["source"], "tollmesh");
        assert_eq!(payload["timestamp"], "2026-11-22T17:05:00.000Z");
        assert_eq!(payload["class"], "budget_tier");
        assert_eq!(payload["custom_details"]["limit"], "200");
    }

    #[test]
    fn alertmanager_gets_labels_that_prometheus_knows() {
        let mut alert = alert();
        alert.key.insert("cost-centre".into(), "4711".into());
        alert.key.insert("absent".into(), String::new());
        let body = body(ChannelKind::Alertmanager, &alert, "");
        let [posted] = body.as_array().unwrap().as_slice() else {
            panic!("{body}");
        };
        let labels = posted["labels"].as_object().unwrap();
        assert_eq!(labels["alertname"], "TollmeshBudgetTier");
        assert_eq!(labels["match_team"], "checkout");
        assert_eq!(labels["key_cost_centre"], "4711");
        for (name, value) in labels {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            assert!(name.chars().all(is_word), "{name}");
            assert!(!value.as_str().unwrap().is_empty(), "{name}");
        }
        assert!(
            posted["annotations"]
                .as_object()
                .unwrap()
                .values()
                .all(Value::is_string)
        );
        assert_eq!(posted["startsAt"], "2026-11-22T17:05:00.000Z");
        assert_eq!(posted["endsAt"], "2026-11-23T00:00:00.000Z");
    }
}
