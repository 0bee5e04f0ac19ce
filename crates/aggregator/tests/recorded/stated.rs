//! Our cost beside the one that providers state in their own answers, and why the two differ.
//!
//! `cargo test -p tollmesh-aggregator --test recorded -- --nocapture` prints the table. A class is
//! a rule about an answer's own numbers, never a list of answers; a difference that none explains
//! fails the test. `pricing/README.md` tells people what each class means.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tollmesh_wire::Timestamp;

use super::{beside, decimal, is_near, lines, tollmesh};

/// One recorded answer that states a cost.
struct Answer<'a> {
    case: &'a Value,
    extracted: &'a Value,
    priced: &'a Value,
    body: String,
    stated: Decimal,
    ours: Option<Decimal>,
}

/// A reason for a difference: its name, and the rule that an answer has to keep.
type Class = (&'static str, fn(&Answer<'_>) -> bool);

/// In this order; the first that fits names the difference.
const CLASSES: [Class; 8] = [
    ("same", is_same),
    ("unpriced", |answer| answer.ours.is_none()),
    ("own key", is_own_key),
    ("billed elsewhere", is_billed_elsewhere),
    ("rounded", is_rounded),
    ("overlapping counts", has_overlap),
    ("server tools", has_tools),
    ("serving host", is_of_serving_host),
];

fn is_same(answer: &Answer<'_>) -> bool {
    answer.ours.is_some_and(|ours| is_near(ours, answer.stated))
}

/// OpenRouter charges nothing for a call with the customer's own key at the maker, and states with
/// it what the maker charges: that is our cost.
/// <https://openrouter.ai/docs/use-cases/usage-accounting>, `is_byok`.
fn is_own_key(answer: &Answer<'_>) -> bool {
    let is_byok = answer.body_says("is_byok") == Some("true".to_owned());
    is_byok && answer.stated.is_zero() && answer.upstream().is_none_or(|usd| answer.is_ours(usd))
}

/// A model of xAI that Azure serves and bills: the maker's field is there, and 0.
fn is_billed_elsewhere(answer: &Answer<'_>) -> bool {
    let ticks = answer.body_says("cost_in_usd_ticks");
    answer.case["provider"] == "azure" && ticks == Some("0".to_owned())
}

/// Perplexity states whole hundred-thousandths of a dollar: ours is nearer than half of one.
/// <https://docs.perplexity.ai/api-reference/chat-completions-post>, `usage.cost`.
fn is_rounded(answer: &Answer<'_>) -> bool {
    const PLACES: u32 = 5;
    let half = Decimal::new(5, PLACES + 1);
    let difference = answer.ours.unwrap_or_default() - answer.stated;
    answer.stated.normalize().scale() <= PLACES
        && answer.case["provider"] == "perplexity"
        && difference.abs() <= half
}

/// The answer's cached and newly written tokens are more than its input: each token is in one of
/// our buckets, and is charged once.
fn has_overlap(answer: &Answer<'_>) -> bool {
    let count = |name| answer.body_says(name).and_then(|n| n.parse::<u64>().ok());
    let of = |name| count(name).unwrap_or(0);
    of("cached_tokens") + of("cache_write_tokens") > of("prompt_tokens").max(of("input_tokens"))
}

/// Tools that OpenRouter runs (searches, documents, other models) are in the sum that it states, and
/// in no field of their own; what the model itself cost is stated apart, and is our cost.
/// <https://openrouter.ai/docs/features/web-search>, `cost_details`, `server_tool_use_details`.
fn has_tools(answer: &Answer<'_>) -> bool {
    let executed = answer.body_says("tool_calls_executed");
    let has_run = executed.is_some_and(|n| n != "0");
    let request = answer.case["request_body"].as_str().unwrap_or_default();
    let has_document = request.contains("\"file_data\"");
    let upstream = answer.upstream();
    (has_run || has_document)
        && upstream.is_some_and(|usd| {
            usd < answer.stated && (answer.is_ours(usd) || answer.has_open_weights())
        })
}

/// A model whose weights are open has a price at each host. OpenRouter charges that of the host it
/// chose, which the request cannot tell; its list shows one.
/// <https://openrouter.ai/docs/features/provider-routing>, `cost_details.upstream_inference_cost`.
fn is_of_serving_host(answer: &Answer<'_>) -> bool {
    let upstream = answer.upstream();
    let is_hosts = upstream.is_some_and(|usd| is_near(usd, answer.stated));
    answer.case["provider"] == "openrouter" && is_hosts && answer.has_open_weights()
}

impl Answer<'_> {
    fn class(&self) -> Option<&'static str> {
        let fits = |(_, rule): &&Class| rule(self);
        CLASSES.iter().find(fits).map(|(name, _)| *name)
    }

    /// The last value of that name in the body: a stream tells it in its last event.
    fn body_says(&self, name: &str) -> Option<String> {
        let quoted = format!("\"{name}\":");
        let (_, after) = self.body.rsplit_once(&quoted)?;
        let value = after.trim_start().split([',', '}', '\n']).next()?;
        Some(value.trim().to_owned())
    }

    /// What the host that served charged for the tokens, where the answer tells.
    fn upstream(&self) -> Option<Decimal> {
        let usd = |name: &str| Some(decimal(&self.body_says(name).filter(|n| n != "null")?));
        let input = usd("upstream_inference_prompt_cost").or(usd("upstream_inference_input_cost"));
        let output =
            usd("upstream_inference_completions_cost").or(usd("upstream_inference_output_cost"));
        usd("upstream_inference_cost").or(Some(input? + output?))
    }

    fn is_ours(&self, usd: Decimal) -> bool {
        self.ours.is_some_and(|ours| is_near(usd, ours))
    }

    /// Whether anyone may serve the model; these makers serve theirs alone, or at one price.
    fn has_open_weights(&self) -> bool {
        let model = self.extracted["model"].as_str().unwrap_or_default();
        let closed = ["anthropic/", "google/gemini", "openai/", "x-ai/"];
        let is_closed = closed.iter().any(|maker| model.starts_with(maker));
        !is_closed || model.starts_with("openai/gpt-oss")
    }

    fn row(&self, class: &str) -> String {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let check = match &self.case["provider_cost_check"]["match"] {
            Value::Bool(true) => "reproduced",
            Value::Bool(false) => "not reproduced",
            _ => "-",
        };
        let shown = |usd: Option<Decimal>| usd.map_or("-".to_owned(), |usd| usd.to_string());
        let difference = self.ours.map(|ours| (self.stated - ours).normalize());
        format!(
            "stated {:18} {:42} ours {:>14} theirs {:>22} difference {:>22}  {check:14}  {class}",
            text(&self.case["provider"]),
            text(&self.extracted["model"]),
            shown(self.ours),
            self.stated,
            shown(difference),
        )
    }
}

/// The body as text, decompressed where it was sent so.
fn body(case: &Value) -> String {
    let body = case["response_body_b64"].as_str().unwrap_or_default();
    let bytes = BASE64_STANDARD.decode(body).unwrap();
    let mut plain = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(&*bytes).read_to_end(&mut plain);
    let bytes = if read.is_ok() { plain } else { bytes };
    String::from_utf8_lossy(&bytes).into_owned()
}

/// When the answer was made, by its own word; OpenRouter's ids begin with it too.
fn time(body: &str) -> Option<Timestamp> {
    let places = ["\"created\":", "\"created_at\":", "\"gen-"];
    let after = places.iter().filter_map(|place| body.split(place).nth(1));
    let digits = after.map(|text| {
        let text = text.trim_start();
        &text[..text.bytes().take_while(u8::is_ascii_digit).count()]
    });
    let seconds = digits.filter_map(|digits| digits.parse::<i64>().ok());
    seconds.map(|s| Timestamp::from_unix_ms(s * 1_000)).next()
}

#[test]
fn each_difference_to_what_a_provider_states_is_explained() {
    let Some(exchanges) = beside("corpus/exchanges.jsonl") else {
        return;
    };
    let extracted = lines(&tollmesh(&["extract"], &exchanges));
    let cases: BTreeMap<String, Value> = lines(&exchanges)
        .into_iter()
        .map(|case| (case["id"].to_string(), case))
        .collect();
    let stating: Vec<Value> = extracted
        .into_iter()
        .filter(|answer| answer["provider_cost_usd"].is_string())
        .map(|mut answer| {
            let body = body(&cases[&answer["id"].to_string()]);
            if let Some(time) = time(&body) {
                answer["timestamp"] = json!(time);
            }
            answer
        })
        .collect();
    let input: Vec<String> = stating.iter().map(Value::to_string).collect();
    let priced = lines(&tollmesh(&["price"], input.join("\n").as_bytes()));
    assert_eq!(priced.len(), stating.len());

    let mut by_class: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for (extracted, priced) in stating.iter().zip(&priced) {
        let case = &cases[&extracted["id"].to_string()];
        let usd = |value: &Value| value.as_str().map(decimal);
        let answer = Answer {
            case,
            extracted,
            priced,
            body: body(case),
            stated: usd(&extracted["provider_cost_usd"]).unwrap(),
            ours: usd(&priced["cost_usd"]),
        };
        let class = answer.class();
        let row = answer.row(class.unwrap_or("UNEXPLAINED"));
        println!("{row}");
        *by_class.entry(class.unwrap_or("UNEXPLAINED")).or_default() += 1;
        // What somebody else reckons from public prices, we reckon too.
        let is_public = case["provider_cost_check"]["match"] == true;
        if class.is_none() || (is_public && class != Some("same")) {
            let lines = &answer.priced["lines"];
            unexplained.push(format!("{} {row} {lines}", extracted["id"]));
        }
    }
    for (class, n) in &by_class {
        println!("stated: {n:4} {class}");
    }
    assert!(by_class.get("same").is_some_and(|n| *n > 0), "{by_class:?}");
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
}

#[test]
fn people_are_told_what_each_class_means() {
    let readme = include_str!("../../../../pricing/README.md");
    for (name, _) in CLASSES {
        assert!(readme.contains(&format!("| {name} |")), "{name}");
    }
}
