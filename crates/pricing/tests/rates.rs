//! What calls came to on a day, for prices that a rule or a list settled.

use std::collections::BTreeMap;

use tollmesh_pricing::{Book, Call, Priced, Status};
use tollmesh_usage::{Bucket, Quantity, Unit, Usage};

/// Provider | model | day | tier | a fact | counts, in millions or units | US dollars.
const RATES: &str = "
gemini     | gemini-3.6-flash                | 2026-08-01 |          |                   | input=1 output=1       | 9
gemini     | gemini-3.6-flash                | 2026-08-13 |          |                   | input=1 output=1       | 4.5
gemini     | gemini-3.6-flash                | 2026-08-01 | flex     |                   | cache_read=1           | 0.075
gemini     | gemini-3-flash-preview          | 2026-01-04 |          |                   | web_searches=3         | 0
gemini     | gemini-3-flash-preview          | 2026-01-05 |          |                   | web_searches=3         | 0.042
vertex     | gemini-embedding-001            | 2026-11-15 | batch    |                   | input=1                | 0.12
gemini     | gemini-embedding-001            | 2026-11-15 | batch    |                   | input=1                | 0.075
bedrock    | deepseek.v3.2                   | 2026-11-15 | flex     | region=eu-north-1 | input=1                | 0.37
bedrock    | deepseek.v3.2                   | 2026-11-15 | flex     |                   | input=1                | 0.31
bedrock    | anthropic.claude-opus-5         | 2026-11-15 |          | region=us-gov-west-1 | input=1             | 6
bedrock    | anthropic.claude-opus-5         | 2026-11-15 |          |                   | web_searches=2         | 0.02
bedrock    | openai.gpt-5.6-sol              | 2026-11-15 |          |                   | web_searches=2         | 0.024
bedrock    | openai.gpt-oss-20b-1:0          | 2026-11-15 |          |                   | input=1 web_searches=2 | 0.07
vertex     | gemini-4-argon-cyber-permissive | 2026-11-15 |          | vertex_location=us-east5 | input=1         | 4.4
bedrock    | anthropic.claude-opus-5         | 2026-11-15 |          | region=us-east-1  | input=1                | 5.5
bedrock    | global.anthropic.claude-opus-5  | 2026-11-15 |          |                   | input=1                | 5
mistral    | magistral-medium-latest         | 2026-05-21 |          |                   | output=1               | 5
mistral    | magistral-medium-latest         | 2026-05-22 |          |                   | output=1               | 7.5
mistral    | codestral-latest                | 2026-11-15 |          |                   | cache_read=1           | 0.03
deepseek   | deepseek-v3.2                   | 2026-01-15 |          |                   | input=1 output=1       | 0.7
openai     | gpt-4o-audio-preview-2024-10-01 | 2025-03-01 |          |                   | audio_input=1          | 100
openai     | gpt-4o-audio-preview-2024-12-17 | 2025-03-01 |          |                   | audio_input=1          | 40
openai     | gpt-4o-mini-search-preview      | 2026-11-15 |          |                   | web_searches=4         | 0.1
openai     | ft:davinci-002:acme::id         | 2026-11-15 | batch    |                   | input=1 output=1       | 12
openrouter | z-ai/glm-5                      | 2026-08-01 |          |                   | input=1 output=1       | 3.5
openrouter | z-ai/glm-5                      | 2026-10-19 |          |                   | input=1 output=1       | 4.2
openrouter | z-ai/glm-5                      | 2026-11-02 |          |                   | input=1 output=1       | 2.52
openrouter | openai/gpt-5.4:batch            | 2026-11-15 |          |                   | output=1               | 7.5
perplexity | openai/gpt-6-luna               | 2026-11-15 |          |                   | output=1               | 0.5
xai        | grok-voice-transcribe-2.0       | 2026-11-15 |          |                   | audio_seconds=3600     | 0.1
xai        | grok-4.3                        | 2026-11-22 |          |                   | x_searches=11          | 0.055
xai        | grok-4.3                        | 2026-11-22 |          |                   | code_calls=2 file_searches=4 document_searches=3 web_searches=1 | 0.055
openai     | gpt-5                           | 2026-06-01 |          |                   | input=1 code_sessions=2 | 1.31
openai     | gpt-5                           | 2026-06-02 |          |                   | input=1 code_sessions=2 | 1.25
cohere     | parse-v5.0                      | 2026-11-15 |          |                   | pages=1000             | 1.5
";

#[test]
fn calls_cost_what_was_listed_on_their_day() {
    let book = Book::load(Book::shipped()).unwrap();
    for line in RATES.trim().lines() {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [provider, model, day, tier, fact, counts, want] = columns[..] else {
            panic!("{line}");
        };
        let fact = fact.split_once('=');
        let context: BTreeMap<String, String> = fact
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        let day: jiff::civil::Date = day.parse().unwrap();
        let instant = day.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
        let priced = book.price(&Call {
            provider,
            model: Some(model),
            model_requested: None,
            unix_ms: instant.as_millisecond(),
            service_tier: Some(tier).filter(|tier| !tier.is_empty()),
            usage: &usage(counts),
            inputs: None,
            context: &context,
        });
        let usd = priced.usd.map(|usd| usd.to_string());
        assert_eq!(usd.as_deref(), Some(want), "{line}: {priced:?}");
    }
}

/// An answer of Grok 4.3 that searched X eleven times, and what it says that it was charged.
#[test]
fn xais_tools_cost_what_its_ticks_say() {
    let book = Book::load(Book::shipped()).unwrap();
    let mut usage = Usage::new()
        .with(Bucket::Input, 33_069 - 20_224)
        .with(Bucket::CacheRead, 20_224)
        .with(Bucket::Output, 1_439);
    usage.set_unit(Unit::XSearches, Quantity::whole(11));
    let priced = priced(&book, "xai", "grok-4.3", &usage);
    assert_eq!(priced.usd.unwrap().to_string(), "0.07869855");
    assert_eq!(priced.status, Status::Exact);
}

/// What OpenAI charges for a container's minutes is in no answer.
#[test]
fn a_container_whose_minutes_are_unknown_is_not_free_in_silence() {
    let book = Book::load(Book::shipped()).unwrap();
    let mut usage = Usage::new().with(Bucket::Input, 1_000_000);
    let without = priced(&book, "openai", "gpt-5", &usage);
    usage.set_unit(Unit::CodeSessions, Quantity::whole(1));
    let with = priced(&book, "openai", "gpt-5", &usage);
    assert_eq!(
        (without.status, with.status),
        (Status::Exact, Status::Assumed)
    );
    assert_eq!(without.usd, with.usd);
}

/// What a call without further facts costs on 22 November 2026.
fn priced(book: &Book, provider: &str, model: &str, usage: &Usage) -> Priced {
    book.price(&Call {
        provider,
        model: Some(model),
        model_requested: None,
        unix_ms: 1_795_305_600_000,
        service_tier: None,
        usage,
        inputs: None,
        context: &BTreeMap::new(),
    })
}

fn usage(counts: &str) -> Usage {
    let mut usage = Usage::new();
    for count in counts.split(' ') {
        let (name, amount) = count.split_once('=').unwrap();
        match Bucket::parse(name) {
            Some(bucket) => {
                let millions: u64 = amount.parse().unwrap();
                usage.set(bucket, Some(millions * 1_000_000));
            }
            None => {
                let unit = Unit::parse(name).unwrap();
                usage.set_unit(unit, Quantity::whole(amount.parse().unwrap()));
            }
        }
    }
    usage
}
