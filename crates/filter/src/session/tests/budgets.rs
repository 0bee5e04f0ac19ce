//! What budgets do to calls: refused, reserved, edited, told, only observed.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use tollmesh_usage::POOL_BYTES_MAX;

use super::*;
use crate::decisions::Table;

const ANTHROPIC: &[(&str, &str)] = &[
    (":authority", "api.anthropic.com"),
    (":path", "/v1/messages"),
    (":method", "POST"),
    ("content-type", "application/json"),
];
const GEMINI: &[(&str, &str)] = &[
    (":authority", "generativelanguage.googleapis.com"),
    (
        ":path",
        "/v1beta/models/gemini-2.5-pro:generateContent?key=k",
    ),
    (":method", "POST"),
    ("content-type", "application/json"),
];
const RED: &[(&str, &str)] = &[("x-llm-tag-team", "red")];
const STRICT: &str = r#"{"budget":"b","match":{"team":"red"},"enforce":"strict",
    "on_unavailable":"closed","limit":"1 USD","window":"day"}"#;
const ALLOWED: &[u8] = br#"{"decision":"allow","reservation_id":"r1-7"}"#;
const DENIED: &[u8] = br#"{"decision":"deny","budget":"b","reason":"budget_exceeded",
    "reset_at":"2026-11-23T00:00:00Z","limit":"1 USD","window":"day"}"#;

fn table(budgets: &[&str]) -> Table {
    let json = format!(r#"{{"v":1,"version":1,"budgets":[{}]}}"#, budgets.join(","));
    Table::read(json.as_bytes()).expect("is a table")
}

/// A budget of which that tier is reached.
fn reached(enforce: &str, tier: &str, more: &str) -> String {
    format!(
        r#"{{"budget":"b","match":{{"team":"red"}},"enforce":"{enforce}","limit":"1 USD",
            "window":"day","tiers":[{tier}],"reached":[{{"tier":0,
            "reset_at":"2026-11-23T00:00:00Z"}}]{more}}}"#
    )
}

impl Play {
    fn budgeted(budgets: &[&str]) -> Play {
        let play = Play::new();
        play.site.decisions.replace(table(budgets));
        play
    }

    fn ends(&mut self, heads: &[&[(&str, &str)]]) -> Effects {
        let headers = headers(heads);
        self.step(Input::RequestHead {
            headers: &headers,
            peer: None,
            ends: true,
        })
    }

    fn answered(&mut self, answer: Option<(u16, &[u8])>) -> Effects {
        self.step(Input::Admission(answer))
    }

    /// The end of a call: its event, and whether it is waited for.
    fn event(&mut self) -> (Value, bool) {
        let effects = self.step(Input::End(Ending {
            attempts: 1,
            ..Ending::default()
        }));
        let event = serde_json::from_str(&effects.events[0]).expect("is JSON");
        (event, effects.is_urgent)
    }
}

fn header<'a>(denial: &'a Denial, name: &str) -> &'a str {
    let mut headers = denial.headers.iter().filter(|(n, _)| *n == name);
    headers.next().map_or("", |(_, value)| value.as_str())
}

#[test]
fn what_the_table_refuses_is_refused_at_the_headers() {
    for (tier, reason, retry_after) in [
        (r#"{"at":"100%","do":"deny"}"#, "budget_exceeded", "72000"),
        (r#"{"at":"90%","do":"shed"}"#, "shed", "72000"),
        (
            r#"{"at":"80%","do":"throttle","requests_per_second":0}"#,
            "throttled",
            "1",
        ),
    ] {
        for (head, pointer) in [(CHAT, "/error/code"), (ANTHROPIC, "/error/type")] {
            for enforce in ["cached", "strict"] {
                let mut play = Play::budgeted(&[&reached(enforce, tier, "")]);
                let effects = play.request(&[head, RED]);
                let denial = effects.denial.expect("a denial");
                assert_eq!(effects.counts, [(Counter::DeniedRequests, 1)]);
                assert_eq!(denial.status, 429);
                assert_eq!(header(&denial, "retry-after"), retry_after);
                assert_eq!(header(&denial, "x-tollmesh-event"), "vm-0");
                assert!(header(&denial, "x-tollmesh-budget").starts_with("b; reason="));
                let body: Value = serde_json::from_str(&denial.body).expect("is JSON");
                assert!(body.pointer(pointer).is_some(), "{body}");
                assert_eq!(body["tollmesh"]["reason"], reason);
                assert!(play.session.is_refused() && !play.session.reads_bodies());
                assert_eq!(play.response(&[&[(":status", "429")]]), Effects::default());
                let (event, is_urgent) = play.event();
                assert_eq!(event["outcome"], "denied");
                assert_eq!(event["status"], 429);
                assert_eq!(event["applied"][0]["reason"], reason);
                assert_eq!(event["applied"][0]["budget"], "b");
                assert!(!is_urgent && event.get("reservation_id").is_none());
            }
        }
    }
}

#[test]
fn others_are_left_alone() {
    let deny = reached("cached", r#"{"at":"100%","do":"deny"}"#, "");
    let spared = r#"{"at":"100%","do":"deny","except":{"priority":"critical"}}"#;
    let spared = reached("strict", spared, "");
    let critical = &[("x-llm-tag-priority", "critical")][..];
    for (budget, extra) in [
        (&deny, &[("x-llm-tag-team", "blue")][..]),
        (&deny, &[]),
        (&spared, critical),
    ] {
        let team = if extra == critical { RED } else { &[] };
        let mut play = Play::budgeted(&[budget]);
        let head = play.request(&[CHAT, extra, team]);
        assert_eq!((head.denial, head.asks), (None, None));
        let body = play.request_body(PLAIN_BODY);
        assert_eq!((body.denial, body.asks), (None, None));
        play.response(&[JSON_HEAD]);
        play.response_body(ANSWER, true);
        let (event, is_urgent) = play.event();
        assert_eq!(event.get("applied"), None, "{event}");
        assert!(!is_urgent);
    }
    // A token count costs nothing.
    let mut play = Play::budgeted(&[&deny]);
    let count = (":path", "/v1/messages/count_tokens");
    let head = [ANTHROPIC[0], count, ANTHROPIC[2], ANTHROPIC[3]];
    assert_eq!(play.request(&[&head, RED]).denial, None);
}

#[test]
fn the_end_of_a_request_waits_for_its_reservation() {
    for (length, cuts) in [
        (Some("32"), &[10, 32][..]),
        (Some("32"), &[32]),
        (None, &[32]),
    ] {
        let mut play = Play::budgeted(&[STRICT]);
        let length = length.map(|length| ("content-length", length));
        let more: Vec<(&str, &str)> = length.into_iter().collect();
        assert_eq!(play.request(&[CHAT, RED, &more]).asks, None);
        let mut from = 0;
        let mut asked = None;
        for cut in cuts {
            assert!(asked.is_none() && !play.session.holds_request());
            let chunk = &PLAIN_BODY[from..*cut];
            let ends = false;
            let effects = play.step(Input::RequestBody { chunk, ends });
            asked = effects.asks;
            from = *cut;
        }
        if length.is_none() {
            assert!(asked.is_none(), "more may come");
            let ends = true;
            let effects = play.step(Input::RequestBody { chunk: b"", ends });
            assert_eq!(effects.counts, [(Counter::ReservationsAsked, 1)]);
            asked = effects.asks;
        }
        let question: Value = serde_json::from_str(&asked.expect("a question")).unwrap();
        assert_eq!(
            question,
            json!({
                "v": 1, "event_id": "vm-0", "provider": "openai", "api": "openai.chat",
                "model": "gpt-4o", "body_bytes": 32, "media_bytes": 0, "has_tools": false,
                "tags": {"team": "red"}, "source": {},
            })
        );
        assert!(play.session.holds_request() && play.session.is_past_request());
        // What was withheld comes again, and is nobody's any more.
        let again = play.request_body(PLAIN_BODY);
        assert_eq!(again, Effects::default());
        let effects = play.answered(Some((200, ALLOWED)));
        assert!(effects.resumes && effects.denial.is_none());
        assert!(!play.session.holds_request() && play.session.is_past_request());
        assert_eq!(play.request_body(b""), Effects::default());
        play.response(&[JSON_HEAD]);
        play.response_body(ANSWER, true);
        let (event, is_urgent) = play.event();
        assert_eq!(event["reservation_id"], "r1-7");
        assert_eq!(event["usage"], json!({"input": 12, "output": 5}));
        assert!(is_urgent);
    }
}

#[test]
fn a_request_without_a_body_waits_too() {
    let mut play = Play::budgeted(&[STRICT]);
    let effects = play.ends(&[CHAT, RED]);
    assert!(effects.asks.is_some() && play.session.holds_request());
    assert!(play.answered(Some((200, ALLOWED))).resumes);

    let mut play = Play::budgeted(&[STRICT]);
    play.request(&[CHAT, RED]);
    play.step(Input::RequestBody {
        chunk: PLAIN_BODY,
        ends: false,
    });
    let effects = play.step(Input::RequestTrailers);
    assert!(effects.asks.is_some() && play.session.holds_request());
}

#[test]
fn a_reservation_may_be_refused() {
    let mut play = Play::budgeted(&[STRICT]);
    play.request(&[CHAT, RED]);
    assert!(play.request_body(PLAIN_BODY).asks.is_some());
    let effects = play.answered(Some((200, DENIED)));
    assert!(!effects.resumes);
    let denial = effects.denial.expect("a denial");
    assert_eq!(denial.details, "tollmesh_budget_exceeded");
    assert_eq!(effects.counts, [(Counter::DeniedRequests, 1)]);
    assert!(play.session.is_refused());
    let (event, _) = play.event();
    assert_eq!(event["outcome"], "denied");
    assert_eq!(event["model_requested"], "gpt-4o");
    assert_eq!(
        event["applied"],
        json!([{"budget": "b", "do": "deny", "reason": "budget_exceeded"}])
    );
}

#[test]
fn who_goes_away_while_waiting_is_charged_nothing_and_leaves_no_reservation() {
    let mut play = Play::budgeted(&[STRICT]);
    play.request(&[CHAT, RED]);
    play.request_body(PLAIN_BODY);
    let effects = play.step(Input::End(Ending {
        response_flags: CLIENT_GONE,
        attempts: 1,
        principal: None,
    }));
    let event: Value = serde_json::from_str(&effects.events[0]).unwrap();
    assert_eq!(event["outcome"], "aborted");
    assert_eq!(event["billable"], false);
    assert!(effects.is_urgent, "the aggregator may have reserved");
    // The answer comes to nobody.
    assert_eq!(play.answered(Some((200, ALLOWED))), Effects::default());
}

#[test]
fn an_answer_that_comes_before_the_decision_goes_on() {
    for (answer, resumes) in [(ALLOWED, true), (DENIED, false)] {
        let mut play = Play::budgeted(&[STRICT]);
        play.request(&[CHAT, RED]);
        play.request_body(PLAIN_BODY);
        play.response(&[&[(":status", "413")]]);
        let effects = play.answered(Some((200, answer)));
        assert_eq!((effects.resumes, effects.denial), (resumes, None));
        play.response_body(b"too large", true);
        assert_eq!(play.event().0["outcome"], "error");
    }
}

#[test]
fn without_an_answer_each_budget_says_what_holds() {
    let capped = r#"{"open_capped":{"nano":100,"nano_per_request":1,"nano_per_input_byte":1,
        "nano_per_output_token":2,"output_tokens":5}}"#;
    // A body of 32 bytes, 5 tokens at 2, and 1 for the call: 43, of which two fit into 100.
    for (word, passes, applied) in [
        ("\"closed\"", [false, false, false], "deny"),
        ("\"open\"", [true, true, true], "open"),
        (capped, [true, true, false], "open_capped"),
    ] {
        let budget = STRICT.replace("\"closed\"", word);
        let shared: Rc<dyn Shared> = Rc::new(Private::default());
        for (n, passes) in passes.into_iter().enumerate() {
            let failures: [Option<(u16, &[u8])>; 3] =
                [None, Some((504, b"")), Some((200, b"not JSON"))];
            // Each call meets another worker.
            let mut play = Play::budgeted(&[&budget]);
            play.site.shared = Rc::clone(&shared);
            play.request(&[CHAT, RED]);
            play.request_body(PLAIN_BODY);
            let effects = play.answered(failures[n]);
            assert_eq!(effects.resumes, passes, "{word} {n}");
            assert_eq!(effects.denial.is_none(), passes);
            assert_eq!(effects.counts[0], (Counter::UnverifiedCalls, 1));
            let (event, is_urgent) = play.event();
            assert!(is_urgent, "a reservation may stand");
            let expected = if passes { applied } else { "deny" };
            assert_eq!(event["applied"][0]["do"], expected);
            let reason = event["applied"][0].get("reason").cloned();
            assert_eq!(reason, (!passes).then(|| json!("budget_unverifiable")));
        }
    }
}

#[test]
fn an_allowance_is_renewed_with_the_window() {
    let word = r#"{"open_capped":{"nano":1,"nano_per_request":1}},
        "window_ends":"2026-11-22T04:00:00.010Z""#;
    let budget = STRICT.replace("\"closed\"", word);
    let shared: Rc<dyn Shared> = Rc::new(Private::default());
    let passed = [0, 0, 100, 100].map(|later_ms| {
        let mut play = Play::budgeted(&[&budget]);
        play.site.shared = Rc::clone(&shared);
        play.request(&[CHAT, RED]);
        play.request_body(PLAIN_BODY);
        play.now_ms = 1_795_320_000_000 + later_ms;
        play.answered(None).resumes
    });
    assert_eq!(passed, [true, false, true, false]);
}

#[test]
fn no_table_yet() {
    let mut play = Play::new();
    assert_eq!(play.request(&[CHAT]).denial, None);
    let mut play = Play::with(r#"{"admission":{"on_unavailable":"deny"}}"#);
    let denial = play.request(&[CHAT]).denial.expect("a denial");
    assert_eq!(denial.details, "tollmesh_budget_unverifiable");
    assert_eq!(play.event().0["outcome"], "denied");
    let mut play = Play::with(r#"{"admission":{"on_unavailable":"deny"}}"#);
    play.site.decisions.replace(table(&[]));
    assert_eq!(play.request(&[CHAT]).denial, None, "there are no budgets");
}

#[test]
fn a_cap_and_a_cheaper_model_are_spliced_in_and_told() {
    let cap = reached(
        "cached",
        r#"{"at":"60%","do":"cap_output","max_tokens":10}"#,
        "",
    );
    let cheap = r#"{"at":"85%","do":"downgrade","models":{"gpt-4o":"gpt-4o-mini"}}"#;
    let cheap = reached("strict", cheap, "").replace("\"b\"", "\"c\"");
    let mut play = Play::budgeted(&[&cap, &cheap]);
    let head = play.request(&[CHAT, RED, &[("content-length", "32")]]);
    assert!(head.edits.contains(&remove("content-length")));
    let effects = play.request_body(PLAIN_BODY);
    let sent: Value = serde_json::from_slice(&effects.body.expect("a splice")).unwrap();
    assert_eq!(
        sent,
        json!({"model": "gpt-4o-mini", "messages": [], "max_completion_tokens": 10})
    );
    let question: Value = serde_json::from_str(&effects.asks.expect("a question")).unwrap();
    assert_eq!(question["model"], "gpt-4o-mini");
    assert_eq!(question["max_output_tokens"], 10);
    play.answered(Some((200, ALLOWED)));
    let told = concat!(
        "c; used=85%; do=downgrade; limit=\"1 USD\"; window=\"day\", ",
        "b; used=60%; do=cap_output; limit=\"1 USD\"; window=\"day\""
    );
    assert_eq!(
        play.response(&[JSON_HEAD]).edits[0],
        set("x-tollmesh-budget", told)
    );
    // An answer that is cut before it names its model is from the one that was put.
    let (event, _) = play.event();
    assert_eq!(event["model_requested"], "gpt-4o");
    assert_eq!(event["model"], "gpt-4o-mini");
    assert_eq!(
        event["applied"],
        json!([{"budget": "c", "do": "downgrade"}, {"budget": "b", "do": "cap_output"}])
    );
}

#[test]
fn edits_that_change_nothing_are_not_told() {
    let cap = reached(
        "cached",
        r#"{"at":"60%","do":"cap_output","max_tokens":10}"#,
        "",
    );
    let cheap = r#"{"at":"85%","do":"downgrade","models":{"gpt-4":"gpt-4o-mini"}}"#;
    let cheap = reached("cached", cheap, "");
    let mut play = Play::budgeted(&[&cap, &cheap]);
    play.request(&[CHAT, RED]);
    let body = br#"{"model":"gpt-4o","max_tokens":5}"#;
    assert_eq!(play.request_body(body).body, None);
    let head = play.response(&[JSON_HEAD]);
    assert_eq!(head.edits, [set("x-tollmesh-event", "vm-0")]);
    assert_eq!(play.event().0.get("applied"), None);
}

#[test]
fn a_model_in_the_path_is_replaced_there() {
    let cheap = r#"{"at":"85%","do":"downgrade","models":{"gemini-2.5-pro":"gemini-2.5-flash"}}"#;
    let budget = reached("cached", cheap, "");
    let mut play = Play::budgeted(&[&budget]);
    let path = "/v1beta/models/gemini-2.5-flash:generateContent?key=k";
    assert!(
        play.request(&[GEMINI, RED])
            .edits
            .contains(&set(":path", path))
    );
    play.request_body(b"{}");
    play.response(&[JSON_HEAD]);
    play.response_body(br#"{"usageMetadata":{"promptTokenCount":3}}"#, true);
    let (event, _) = play.event();
    assert_eq!(event["model_requested"], "gemini-2.5-pro");
    assert_eq!(event["model"], "gemini-2.5-flash");
    assert_eq!(
        event["applied"],
        json!([{"budget": "b", "do": "downgrade"}])
    );
}

#[test]
fn a_model_is_downgraded_by_each_of_its_names() {
    let cheap = r#"{"at":"85%","do":"downgrade","models":{"gpt-4o":"gpt-4o-mini","o*":"gpt-5"}}"#;
    let all = reached("cached", cheap, "");
    // What it does hangs on the very name that the app asks for.
    let one = all.replace(
        r#""team":"red""#,
        r#""team":"red","model":"gpt-4o-2024-08-06""#,
    );
    assert_ne!(one, all);
    for (budget, asked, put) in [
        (&all, "gpt-4o", Some("gpt-4o-mini")),
        (&all, "GPT-4o", Some("gpt-4o-mini")),
        (&all, "gpt-4o-2024-08-06", Some("gpt-4o-mini")),
        (&all, "gpt-4o-mini", None),
        (&all, "o3", Some("gpt-5")),
        (&one, "gpt-4o-2024-08-06", Some("gpt-4o-mini")),
        (&one, "gpt-4o", None),
        (&one, "o3", None),
    ] {
        let mut play = Play::budgeted(&[budget]);
        play.request(&[CHAT, RED]);
        let body = json!({"model": asked}).to_string();
        let sent = play.request_body(body.as_bytes()).body;
        let expected = put.map(|put| json!({"model": put}).to_string().into_bytes());
        assert_eq!(sent, expected, "{asked}");
        play.response(&[JSON_HEAD]);
        let (event, _) = play.event();
        assert_eq!(event["model_requested"], asked);
        let applied = put.map(|_| json!([{"budget": "b", "do": "downgrade"}]));
        assert_eq!(event.get("applied"), applied.as_ref(), "{asked}");
    }
}

#[test]
fn what_cannot_be_edited_is_told_and_counted() {
    let cheap = r#"{"at":"85%","do":"downgrade","models":{"gemini-2.5-pro":"small",
        "gpt-4o":"small"}}"#;
    let cap = r#"{"at":"60%","do":"cap_output","max_tokens":10}"#;
    let digest = &[("content-digest", "sha-256=:x:")][..];
    let signed = &[("signature-input", "s=()")][..];
    for (tier, head, extra) in [
        (cheap, GEMINI, signed),
        (cheap, CHAT, digest),
        (cap, CHAT, digest),
    ] {
        let mut play = Play::budgeted(&[&reached("cached", tier, "")]);
        let effects = play.request(&[head, RED, extra]);
        assert!(!effects.edits.iter().any(|edit| edit.name() == ":path"));
        assert_eq!(play.request_body(PLAIN_BODY).body, None);
        let effects = play.response(&[JSON_HEAD]);
        assert_eq!(effects.counts, [(Counter::BudgetEditsUnmade, 1)], "{tier}");
        let HeaderEdit::Set(name, value) = &effects.edits[0] else {
            panic!("{effects:?}");
        };
        assert_eq!(name, "x-tollmesh-budget");
        assert!(String::from_utf8_lossy(value).contains("; advice="));
        assert_eq!(
            play.event().0["applied"],
            json!([{"budget": "b", "do": "header"}])
        );
    }
}

#[test]
fn a_cap_whose_key_is_not_known_is_told_and_counted() {
    let cap = r#"{"at":"60%","do":"cap_output","max_tokens":10}"#;
    let deployment: &[(&str, &str)] = &[
        (":authority", "r.openai.azure.com"),
        (
            ":path",
            "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
        (":method", "POST"),
        ("content-type", "application/json"),
    ];
    for (body, sent) in [
        (r#"{"messages":[]}"#, None),
        (r#"{"max_tokens":50}"#, Some(r#"{"max_tokens":10}"#)),
    ] {
        let mut play = Play::budgeted(&[&reached("cached", cap, "")]);
        play.request(&[deployment, RED]);
        let edited = play.request_body(body.as_bytes()).body;
        assert_eq!(edited.as_deref(), sent.map(str::as_bytes));
        let effects = play.response(&[JSON_HEAD]);
        let unmade = (Counter::BudgetEditsUnmade, 1);
        assert_eq!(effects.counts.contains(&unmade), sent.is_none(), "{body}");
        let told = effects.edits.iter().find_map(|edit| match edit {
            HeaderEdit::Set(name, value) if name == "x-tollmesh-budget" => {
                Some(String::from_utf8_lossy(value).into_owned())
            }
            _ => None,
        });
        let word = if sent.is_some() {
            "do=cap_output"
        } else {
            "advice=cap_output"
        };
        assert!(told.is_some_and(|told| told.contains(word)), "{body}");
    }
}

#[test]
fn a_budget_that_observes_only_counts() {
    for (tier, action) in [
        (r#"{"at":"1%","do":"deny"}"#, "deny"),
        (r#"{"at":"1%","do":"shed"}"#, "shed"),
        (
            r#"{"at":"1%","do":"cap_output","max_tokens":1}"#,
            "cap_output",
        ),
        (
            r#"{"at":"1%","do":"downgrade","models":{"gpt-4o":"x"}}"#,
            "downgrade",
        ),
        (
            r#"{"at":"1%","do":"throttle","requests_per_second":0}"#,
            "throttle",
        ),
        (r#"{"at":"1%","do":"header"}"#, "header"),
    ] {
        let mut play = Play::budgeted(&[&reached("observe", tier, "")]);
        let mut counts = play.request(&[CHAT, RED]).counts;
        let body = play.request_body(PLAIN_BODY);
        assert_eq!(
            (&body.body, &body.denial, &body.asks),
            (&None, &None, &None),
            "{action}"
        );
        let head = play.response(&[JSON_HEAD]);
        counts.extend(head.counts);
        assert_eq!(head.edits, [set("x-tollmesh-event", "vm-0")]);
        play.response_body(ANSWER, true);
        assert_eq!(counts, [(Counter::BudgetActionsObserved, 1)], "{action}");
        let (event, _) = play.event();
        assert_eq!(event["applied"][0]["do"], action);
        assert_eq!(event["applied"][0]["observed"], true);
    }
}

#[test]
fn a_budget_on_a_model_is_decided_when_the_model_is_known() {
    let deny = reached("cached", r#"{"at":"100%","do":"deny"}"#, "");
    let deny = deny.replace(r#"{"team":"red"}"#, r#"{"model":"gpt-4o"}"#);
    for (body, is_refused) in [(PLAIN_BODY, true), (br#"{"model":"gpt-4o-mini"}"#, false)] {
        let mut play = Play::budgeted(&[&deny]);
        assert_eq!(play.request(&[CHAT]).denial, None);
        let effects = play.request_body(body);
        assert_eq!(effects.denial.is_some(), is_refused);
        assert_eq!(
            (effects.asks, play.session.is_refused()),
            (None, is_refused)
        );
    }
    // A strict budget on the cheaper model concerns what is made to ask for it.
    let strict = STRICT.replace(r#"{"team":"red"}"#, r#"{"model":"cheap"}"#);
    let cheap =
        r#"{"at":"85%","do":"downgrade","models":{"gpt-4o":"cheap","gemini-2.5-pro":"cheap"}}"#;
    let cheap = reached("cached", cheap, "");
    for head in [CHAT, GEMINI] {
        let mut play = Play::budgeted(&[&strict, &cheap]);
        play.request(&[head, RED]);
        let asks = play.request_body(PLAIN_BODY).asks.expect("a question");
        let question: Value = serde_json::from_str(&asks).unwrap();
        assert_eq!(question["model"], "cheap");
    }
}

/// An app cannot get past a budget on a model by compressing what names it.
#[test]
fn a_budget_on_a_model_reads_bodies_that_are_compressed() {
    let body = format!(
        r#"{{"messages":["{}"],"max_tokens":7,"model":"gpt-4o"}}"#,
        "a long story ".repeat(5_000)
    );
    let gzip = gzipped(body.as_bytes());
    let denies = reached("cached", r#"{"at":"100%","do":"deny"}"#, "");
    let denies = denies.replace(r#""team":"red""#, r#""model":"gpt-4o""#);
    let strict = STRICT.replace(r#""team":"red""#, r#""model":"gpt-4o""#);
    let identity_first = [
        ("content-encoding", "identity"),
        ("content-encoding", "gzip"),
    ];
    for (encodings, sent) in [
        (&[("content-encoding", "gzip")][..], gzip.as_slice()),
        (&identity_first[..], gzip.as_slice()),
        // Servers that do not look at the header take this as it is.
        (&[("content-encoding", "gzip")][..], body.as_bytes()),
        (&[("content-encoding", "x-own")][..], body.as_bytes()),
    ] {
        let length = sent.len().to_string();
        let length = &[("content-length", length.as_str())][..];
        for heads in [&[CHAT, encodings][..], &[CHAT, encodings, length][..]] {
            let mut play = Play::budgeted(&[&denies]);
            let free = play.site.decoders.n_bytes_left();
            assert_eq!(free, POOL_BYTES_MAX);
            assert_eq!(play.request(heads), Effects::default());
            for chunk in sent.chunks(100) {
                let effects = play.step(Input::RequestBody { chunk, ends: false });
                assert_eq!(effects.body, None);
            }
            if !play.session.is_refused() {
                play.request_body(b"");
            }
            assert!(play.session.is_refused(), "{encodings:?}");
            assert_eq!(play.site.decoders.n_bytes_left(), free);
            let (event, _) = play.event();
            assert_eq!(event["outcome"], "denied");
            assert_eq!(event["model_requested"], "gpt-4o");

            // What is reserved is what the provider reads.
            let mut play = Play::budgeted(&[&strict]);
            play.request(heads);
            let asked = play.request_body(sent).asks.expect("a question");
            let asked: Value = serde_json::from_str(&asked).unwrap();
            assert_eq!(asked["model"], "gpt-4o");
            assert_eq!(asked["max_output_tokens"], 7);
            assert_eq!(asked["body_bytes"], body.len());
        }
    }
}

/// What it asks for cannot be known, so the operator's word for what cannot be asked holds.
#[test]
fn a_budget_on_a_model_says_what_holds_for_bodies_that_cannot_be_decoded() {
    let on_model = |budget: &str| budget.replace(r#""team":"red""#, r#""model":"gpt-4o""#);
    let deny = r#"{"at":"100%","do":"deny"}"#;
    let closed = r#","on_unavailable":"closed""#;
    let strict = on_model(STRICT);
    for (budget, outcome) in [
        (strict.clone(), Some("deny")),
        (on_model(&reached("cached", deny, closed)), Some("deny")),
        (strict.replace("closed", "open"), Some("open")),
        (on_model(&reached("cached", deny, "")), Some("open")),
        (on_model(&reached("observe", deny, closed)), None),
        (
            on_model(&reached("cached", r#"{"at":"60%","do":"warn"}"#, closed)),
            None,
        ),
        // It concerns others.
        (
            strict.replace(r#""model""#, r#""team":"blue","model""#),
            None,
        ),
    ] {
        for encoding in ["gzip", "gzip, gzip", "x-own"] {
            let mut play = Play::budgeted(&[&budget]);
            play.request(&[CHAT, RED, &[("content-encoding", encoding)]]);
            let effects = play.request_body(b"\x1f\x8b\x08 that is no gzip");
            let is_refused = outcome == Some("deny");
            assert_eq!(effects.denial.is_some(), is_refused, "{budget}");
            let is_counted = effects.counts.contains(&(Counter::UnverifiedCalls, 1));
            assert_eq!(is_counted, outcome.is_some(), "{budget}");
            let (event, _) = play.event();
            let applied = event["applied"][0]["do"].as_str();
            assert_eq!(applied, outcome, "{budget}");
        }
        // What is simply no JSON asks for nothing.
        let mut play = Play::budgeted(&[&budget]);
        play.request(&[CHAT, RED]);
        assert_eq!(play.request_body(b"\x1f\x8b\x08").denial, None);
    }
}

fn gzipped(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// What is behind the place at which decoding ends may name another model, and counts then.
#[test]
fn a_budget_on_a_model_is_not_evaded_by_a_body_that_decodes_in_part() {
    let on_model = |budget: &str| budget.replace(r#""team":"red""#, r#""model":"dear""#);
    let deny = r#"{"at":"100%","do":"deny"}"#;
    let closed = r#","on_unavailable":"closed""#;
    let spent = reached("cached", deny, closed);
    let per_model = spent.replace(
        r#""reached":[{"#,
        r#""per":["model"],"reached":[{"key":["dear"],"#,
    );
    let except = deny.replace('}', r#","except":{"model":"cheap"}}"#);
    let cheap = br#"{"model":"cheap","max_tokens":1,"n":1,"#;
    let whole = gzipped(&[&cheap[..], br#""messages":[]}"#].concat());
    // The rest is to come as another member, whose header is broken.
    let cut = [gzipped(cheap), b"\x1f\x00".to_vec()].concat();
    let cut = cut.as_slice();
    for budget in [
        on_model(STRICT),
        on_model(&spent),
        per_model,
        reached("cached", &except, closed),
    ] {
        for (sent, is_refused) in [(cut, true), (whole.as_slice(), false)] {
            let mut play = Play::budgeted(&[&budget]);
            play.request(&[CHAT, RED, &[("content-encoding", "gzip")]]);
            let effects = play.request_body(sent);
            assert_eq!(effects.denial.is_some(), is_refused, "{budget}");
            let is_counted = effects.counts.contains(&(Counter::UnverifiedCalls, 1));
            assert_eq!(is_counted, is_refused, "{budget}");
        }
    }
    // What is reserved has none of the limits, which the rest may raise.
    for (sent, expected) in [(cut, Value::Null), (&whole, json!(1))] {
        let mut play = Play::budgeted(&[STRICT]);
        play.request(&[CHAT, RED, &[("content-encoding", "gzip")]]);
        let asked = play.request_body(sent).asks.expect("a question");
        let asked: Value = serde_json::from_str(&asked).unwrap();
        assert_eq!(
            (&asked["max_output_tokens"], &asked["n_choices"]),
            (&expected, &expected)
        );
    }
}

/// The app cannot hide a model in a form that servers read otherwise than we do.
#[test]
fn a_budget_on_a_model_is_not_evaded_by_a_form_with_two() {
    let strict = STRICT.replace(r#""team":"red""#, r#""model":"dear""#);
    let part = |name: &str, value: &str| {
        format!("--xy\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let head = [
        (":authority", "api.openai.com"),
        (":path", "/v1/audio/transcriptions"),
        (":method", "POST"),
        ("content-type", "multipart/form-data; boundary=xy"),
    ];
    for (body, is_refused) in [
        (part("model", "cheap"), false),
        (part("model", "dear") + &part("model", "cheap"), true),
        (part("model", "dear") + &part("\\model", "cheap"), true),
    ] {
        let mut play = Play::budgeted(&[&strict]);
        play.request(&[&head]);
        let effects = play.request_body((body + "--xy--\r\n").as_bytes());
        assert_eq!((effects.denial.is_some(), effects.asks), (is_refused, None));
    }
}

/// One call, of which neither the model is known nor the aggregator's answer: counted once, and an
/// allowance is taken from only where the aggregator does not refuse.
#[test]
fn what_is_neither_known_nor_answered_counts_once() {
    let capped = r#"{"open_capped":{"nano":1,"nano_per_request":1}}"#;
    let capped = STRICT
        .replace(r#""team":"red""#, r#""model":"dear""#)
        .replace("\"b\"", "\"capped\"")
        .replace("\"closed\"", capped);
    let open = STRICT.replace("\"closed\"", "\"open\"");
    let shared: Rc<dyn Shared> = Rc::new(Private::default());
    let answers = [
        (Some((200, DENIED)), false, 0),
        (Some((200, DENIED)), false, 0),
        (None, true, 1),
        // The allowance is spent.
        (Some((200, ALLOWED)), false, 1),
    ];
    for (n, (answer, passes, n_unverified)) in answers.into_iter().enumerate() {
        let mut play = Play::budgeted(&[&capped, &open]);
        play.site.shared = Rc::clone(&shared);
        play.request(&[CHAT, RED, &[("content-encoding", "gzip, gzip")]]);
        let first = play.request_body(b"\x1f\x8b\x08");
        assert!(first.asks.is_some() && first.denial.is_none(), "{n}");
        let second = play.answered(answer);
        assert_eq!(
            (second.resumes, second.denial.is_none()),
            (passes, passes),
            "{n}"
        );
        let counts = first.counts.iter().chain(&second.counts);
        let unverified = counts.filter(|(counter, _)| *counter == Counter::UnverifiedCalls);
        assert_eq!(unverified.map(|(_, n)| n).sum::<u64>(), n_unverified, "{n}");
        let (event, is_urgent) = play.event();
        assert!(is_urgent, "a reservation may stand");
        let is_reserved = answer == Some((200, ALLOWED));
        assert_eq!(event.get("reservation_id").is_some(), is_reserved);
    }
}

/// Its sender chooses how much memory a body takes to be decoded; the largest window there is fits.
#[test]
fn a_body_of_the_largest_window_is_read_and_one_too_many_is_counted() {
    let body = format!(
        r#"{{"messages":["{}"],"model":"dear"}}"#,
        "a word ".repeat(9_000)
    );
    let parameters = brotli::enc::BrotliEncoderParams {
        lgwin: 24,
        ..Default::default()
    };
    let mut sent = Vec::new();
    brotli::BrotliCompress(&mut body.as_bytes(), &mut sent, &parameters).unwrap();
    let strict = STRICT.replace(r#""team":"red""#, r#""model":"dear""#);
    let head = [CHAT, &[("content-encoding", "br")]];
    let out_of_memory = (Counter::Trouble(tollmesh_usage::Trouble::DecoderBudget), 1);
    let mut play = Play::budgeted(&[&strict]);
    play.request(&head);
    // Another body is on its way.
    let mut other = Session::default();
    let headers = headers(&head);
    let inputs = [
        Input::RequestHead {
            headers: &headers,
            peer: None,
            ends: false,
        },
        Input::RequestBody {
            chunk: &sent[..sent.len() - 1],
            ends: false,
        },
    ];
    let effects = play.request_body(&sent);
    let asked: Value = serde_json::from_str(&effects.asks.expect("a question")).unwrap();
    assert_eq!(asked["body_bytes"], body.len());
    assert!(!effects.counts.contains(&out_of_memory));
    for input in inputs {
        other.step(&play.site, input, Timestamp::default());
    }
    play.session = Session::default();
    play.request(&head);
    let effects = play.request_body(&sent);
    assert!(effects.denial.is_some(), "closed");
    assert!(effects.counts.contains(&out_of_memory));
}

#[test]
fn a_header_and_a_warning() {
    let header = r#"{"at":"50%","do":"warn"},{"at":"60%","do":"header"}"#;
    let budget = reached("cached", header, "").replace(r#""tier":0"#, r#""tier":1"#);
    let mut play = Play::budgeted(&[&budget]);
    play.request(&[CHAT, RED]);
    play.request_body(PLAIN_BODY);
    let told = "b; used=60%; do=header; limit=\"1 USD\"; window=\"day\"";
    let head = play.response(&[JSON_HEAD]);
    assert_eq!(head.edits[0], set("x-tollmesh-budget", told));
    let applied = json!([{"budget": "b", "do": "warn"}, {"budget": "b", "do": "header"}]);
    assert_eq!(play.event().0["applied"], applied);
}

#[test]
fn a_throttled_proxy_lets_its_pace_pass() {
    let tier = r#"{"at":"80%","do":"throttle","requests_per_second":2}"#;
    let budget = reached("cached", tier, "");
    let shared: Rc<dyn Shared> = Rc::new(Private::default());
    let passed = [0, 10, 20, 1_200].map(|later_ms| {
        let mut play = Play::budgeted(&[&budget]);
        play.site.shared = Rc::clone(&shared);
        play.now_ms += later_ms;
        play.request(&[CHAT, RED]).denial.is_none()
    });
    assert_eq!(passed, [true, true, false, true]);
}

#[test]
fn a_connection_is_reserved_as_one_call() {
    let upgrade = &[("upgrade", "websocket"), ("connection", "upgrade")][..];
    let head = &[
        (":authority", "api.openai.com"),
        (":path", "/v1/realtime?model=gpt-realtime"),
        (":method", "GET"),
    ];
    for answer in [Some((200, ALLOWED)), None] {
        let budget = STRICT.replace("closed", "open");
        let mut play = Play::budgeted(&[&budget]);
        let effects = play.request(&[head, RED, upgrade]);
        let question: Value = serde_json::from_str(&effects.asks.expect("asks")).unwrap();
        assert_eq!(question["model"], "gpt-realtime");
        assert!(play.session.holds_request());
        assert!(play.answered(answer).resumes);
        play.response(&[&[(":status", "101"), ("upgrade", "websocket")]]);
        // Nothing was said on it: its event settles what was reserved.
        let effects = play.step(Input::End(Ending::default()));
        let event: Value = serde_json::from_str(&effects.events[0]).unwrap();
        assert_eq!(event["event_id"], "vm-0");
        assert_eq!(event["billable"], false);
        let expected = answer.map(|_| json!("r1-7"));
        assert_eq!(event.get("reservation_id").cloned(), expected);
        assert!(effects.is_urgent);
    }
}

/// What starts a batch, a run or a video costs nothing itself, and what it starts may cost much.
const STARTS: &[(&str, &str, &str)] = &[
    ("api.openai.com", "/v1/batches", r#"{"input_file_id":"f"}"#),
    (
        "api.openai.com",
        "/v1/threads/t/runs",
        r#"{"model":"gpt-4o"}"#,
    ),
    ("api.openai.com", "/v1/videos", r#"{"model":"sora-2"}"#),
    (
        "api.anthropic.com",
        "/v1/messages/batches",
        r#"{"requests":[]}"#,
    ),
    ("api.mistral.ai", "/v1/batch/jobs", r#"{"model":"m"}"#),
    (
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-2.5-pro:batchGenerateContent",
        r#"{"batch":{}}"#,
    ),
];

fn posted<'a>(host: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    let json = ("content-type", "application/json");
    [
        (":authority", host),
        (":path", path),
        (":method", "POST"),
        json,
    ]
}

#[test]
fn what_the_table_refuses_is_not_started_either() {
    for (host, path, body) in STARTS {
        for (enforce, tier, refused) in [
            ("cached", r#"{"at":"100%","do":"deny"}"#, true),
            ("strict", r#"{"at":"100%","do":"deny"}"#, true),
            ("cached", r#"{"at":"80%","do":"shed"}"#, true),
            ("observe", r#"{"at":"100%","do":"deny"}"#, false),
            // What it will cost is in no body, and what caps and downgrades would change neither.
            ("strict", r#"{"at":"50%","do":"warn"}"#, false),
            (
                "cached",
                r#"{"at":"50%","do":"downgrade","models":{"gpt-4o":"x","gemini-2.5-pro":"x"}}"#,
                false,
            ),
            (
                "cached",
                r#"{"at":"50%","do":"cap_output","max_tokens":5}"#,
                false,
            ),
        ] {
            let what = format!("{path}: {enforce} {tier}");
            let mut play = Play::budgeted(&[&reached(enforce, tier, "")]);
            let head = play.request(&[&posted(host, path), RED]);
            assert_eq!(head.denial.is_some(), refused, "{what}");
            if !refused {
                let effects = play.request_body(body.as_bytes());
                assert_eq!((effects.asks, effects.denial), (None, None), "{what}");
                let sent = effects.body.unwrap_or_else(|| body.as_bytes().to_vec());
                assert_eq!(sent, body.as_bytes(), "{what}");
                play.response(&[JSON_HEAD]);
            }
            let (event, is_urgent) = play.event();
            let is_denied = event["outcome"] == "denied";
            assert_eq!((is_denied, is_urgent), (refused, false), "{what}");
        }
    }
    // A look at what was started costs nothing, and starts nothing.
    let spent = reached("cached", r#"{"at":"100%","do":"deny"}"#, "");
    let mut play = Play::budgeted(&[&spent]);
    let look = [
        (":authority", "api.openai.com"),
        (":path", "/v1/batches/b1"),
        (":method", "GET"),
    ];
    assert_eq!(play.ends(&[&look, RED]).denial, None);
}

#[test]
fn what_cannot_be_read_is_judged_by_what_its_headers_say() {
    let deny = r#""tiers":[{"at":"100%","do":"deny"}],"reached":[{"tier":0}]}"#;
    let budget =
        |matches: &str| format!(r#"{{"budget":"b","match":{matches},"enforce":"cached",{deny}"#);
    for (matches, refused) in [
        ("{}", true),
        (r#"{"team":"red"}"#, true),
        (r#"{"provider":"openai"}"#, true),
        (r#"{"provider":"anthropic"}"#, false),
        (r#"{"team":"blue"}"#, false),
        // Nobody knows.
        (r#"{"model":"gpt-4o"}"#, false),
    ] {
        let mut play = Play::budgeted(&[&budget(matches)]);
        let effects = play.request(&[&posted("api.openai.com", "/v1/telepathy"), RED]);
        assert_eq!(effects.denial.is_some(), refused, "{matches}");
        assert_eq!(play.session.is_refused(), refused, "{matches}");
        assert!(!play.session.is_metered() && !play.session.reads_bodies());
        let counted = match refused {
            true => Counter::DeniedRequests,
            false => Counter::UnmeteredProviderCalls,
        };
        assert_eq!(effects.counts, [(counted, 1)], "{matches}");
        if let Some(denial) = &effects.denial {
            assert_eq!(denial.status, 429);
            assert_eq!(header(denial, "x-tollmesh-event"), "", "there is no event");
            assert!(
                denial.body.contains("insufficient_quota"),
                "{}",
                denial.body
            );
        }
        let rest = [
            play.request_body(PLAIN_BODY),
            play.response(&[JSON_HEAD]),
            play.response_body(b"{}", true),
            play.step(Input::End(Ending::default())),
        ];
        assert!(rest.iter().all(|effects| *effects == Effects::default()));
    }
}
