//! Calls and the rows that price them.

use std::collections::BTreeMap;

use tollmesh_usage::{Bucket, Quantity, Unit, Usage};

use super::*;
use crate::cost::Status;

const MAKER: &str = r#"
schema = 1
provider = "maker"
aliases = ["maker-api"]
tier_facts = ["speed"]
unlisted_regions = ["cn"]
[tiers]
batch = []
fast = []
[billed_as]
reasoning = "output"
[source]
list = "https://maker.example/pricing"
[[model]]
id = "m-1"
match = ["m-1{snap}"]
rate = [
  { input = "3", cache_write = "4", audio_input = "30", output = "15", src = "list",
    checked = 2026-11-09 },
  { tier = "batch", input = "1.50", output = "7.50", src = "list", checked = 2026-11-10 },
  { tier = "fast", input = "6", output = "30", src = "list", checked = 2026-11-10 },
]
[[model]]
id = "deaf"
audio = true
rate = [{ input = "1", output = "2", src = "list", checked = 2026-11-09 }]
[[model]]
id = "seer"
rate = [{ input = "1", src = "list", checked = 2026-11-09 }]
[[model]]
id = "scribe"
rate = [{ audio_seconds = "0.36/3600", src = "list", checked = 2026-11-09 }]
[[model]]
id = "embed"
rate = [{ characters = "0.025/1000000", input = "0.10", either = true, src = "list",
  checked = 2026-11-09 }]
[[model]]
id = "local"
rate = [{ input = "0", free = true, src = "list", checked = 2026-11-09 }]
[[modifier]]
id = "geo"
when = { geo = "us" }
models = ["m-*"]
times = "1.1"
src = "list"
checked = 2026-11-09
[[fee]]
id = "prompt"
unit = "grounded_prompts"
models = ["seer"]
each = "0.035"
src = "list"
checked = 2026-11-09
[[fee]]
id = "queries"
unit = "web_searches"
models = ["seer"]
each = "0"
free = true
src = "list"
checked = 2026-11-09
[[fee]]
id = "search"
unit = "web_searches"
models = ["m-1"]
each = "0.01"
src = "list"
checked = 2026-11-11
"#;

const CLOUD: &str = r#"
schema = 1
provider = "cloud"
inherits = ["maker"]
bill_by = "requested"
prefixes = ["arn:*:profile/"]
routers = ["arn:*:router/*"]
[tiers]
night = []
[inherit]
tiers = ["standard"]
except = ["loc*"]
[[model]]
id = "us.m-1"
rate = [
  { input = "3.30", output = "16.50", src = "https://cloud.example", checked = 2026-11-09 },
  { region = "eu-1", input = "4", src = "https://cloud.example", checked = 2026-11-09 },
  { region = ["eu-2", "ap-*"], input = "5", src = "https://cloud.example", checked = 2026-11-09 },
  { tier = "night", input = "2", src = "https://cloud.example", checked = 2026-11-09 },
]
"#;

const LATER: &str = r#"
schema = 1
provider = "maker"
[[model]]
id = "m-1"
match = ["m-1-20260101"]
rate = [{ input = "1", output = "1", src = "https://maker.example", checked = 2026-11-12 }]
"#;

/// Provider | model | tier | a fact | counts, in millions or all that fit | what it comes to.
const CASES: &str = "
maker     | m-1                  |       |                | input=M output=M | exact 18
Maker-API | M-1-2026-01-01       |       |                | input=M          | exact 3
maker     | m-1                  | BATCH |                | input=M          | exact 1.5
maker     | m-1                  |       | speed=fast     | input=M          | exact 6
maker     | m-1                  |       | speed=standard | input=M          | exact 3
maker     | m-1                  | batch | speed=fast     | input=M          | unpriced no_row
maker     | m-1                  |       | geo=us         | input=M          | exact 3.3
maker     | deaf                 |       | geo=us         | input=M          | exact 1
maker     | m-1                  |       | region=CN      | input=M          | assumed 3
maker     | m-1                  |       | region=us      | input=M          | exact 3
maker     | m-1                  |       |                | reasoning=M      | exact 15
maker     | m-1                  |       |                | cache_write_1h=M | assumed 4
maker     | m-1                  |       |                | cache_read=M     | assumed 3
maker     | m-1                  |       |                | audio_input=M    | exact 30
maker     | m-1                  |       |                | audio_output=M   | assumed 15
maker     | deaf                 |       |                | audio_output=M   | unpriced no_rate
maker     | deaf                 |       |                | audio_output=0   | exact 0
maker     | m-1                  |       |                | input=max        | exact 55340232221128.654845
maker     | m-1                  | turbo |                | input=M          | unpriced unknown_tier
maker     | m-11                 |       |                | input=M          | unpriced unknown_model
maker     |                      |       |                | input=M          | unpriced no_model
maker     | m-1                  |       |                |                  | unpriced no_usage
nobody    | m-1                  |       |                | input=M          | unpriced unknown_provider
cloud     | us.m-1               |       |                | input=M          | exact 3.3
cloud     | us.m-1               |       | region=eu-1    | input=M          | exact 4
cloud     | us.m-1               |       | region=EU-2    | input=M          | exact 5
cloud     | us.m-1               |       | region=us-1    | input=M          | exact 3.3
cloud     | us.m-1               | night | region=us-1    | input=M          | exact 2
cloud     | us.m-1               | night | region=eu-1    | input=M          | assumed 2
cloud     | arn:1:profile/us.m-1 |       |                | input=M          | exact 3.3
cloud     | arn:1:other/us.m-1   |       |                | input=M          | unpriced unknown_model
cloud     | m-1                  |       | geo=us         | input=M          | exact 3
cloud     | m-1                  | batch |                | input=M          | unpriced unknown_tier
cloud     | arn:1:router/r       |       |                | input=M          | unpriced unknown_model
maker     | local                |       |                | input=M          | exact 0
cloud     | local                |       |                | input=M          | unpriced unknown_model
";

fn book(texts: &[&str]) -> Book {
    let named = |(n, text): (usize, &&str)| SourceFile {
        name: format!("{n}.toml"),
        text: (*text).to_owned(),
    };
    let files: Vec<SourceFile> = texts.iter().enumerate().map(named).collect();
    Book::load(&files).unwrap()
}

fn usage(counts: &[(Bucket, u64)]) -> Usage {
    let add = |usage: Usage, (bucket, n): &(Bucket, u64)| usage.with(*bucket, *n);
    counts.iter().fold(Usage::new(), add)
}

struct Asked<'a> {
    provider: &'a str,
    model: &'a str,
    tier: Option<&'a str>,
    facts: &'a [(&'a str, &'a str)],
    usage: Usage,
}

fn price(book: &Book, asked: Asked<'_>) -> Priced {
    let facts = asked
        .facts
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()));
    book.price(&Call {
        provider: asked.provider,
        model: Some(asked.model),
        model_requested: None,
        unix_ms: 0,
        service_tier: asked.tier,
        usage: &asked.usage,
        inputs: None,
        context: &facts.collect::<BTreeMap<_, _>>(),
    })
}

#[test]
fn each_call_has_its_row_and_its_reason() {
    let book = book(&[MAKER, CLOUD]);
    for line in CASES.trim().lines() {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [provider, model, tier, fact, counts, want] = columns[..] else {
            panic!("{line}");
        };
        let facts: Vec<(&str, &str)> = fact.split_once('=').into_iter().collect();
        let got = price(
            &book,
            Asked {
                provider,
                model,
                tier: Some(tier).filter(|tier| !tier.is_empty()),
                facts: &facts,
                usage: counts
                    .split_whitespace()
                    .fold(Usage::new(), |usage, count| {
                        let (bucket, n) = count.split_once('=').unwrap();
                        let n = n
                            .parse()
                            .unwrap_or(if n == "M" { 1_000_000 } else { u64::MAX });
                        usage.with(Bucket::parse(bucket).unwrap(), n)
                    }),
            },
        );
        let usd = got.usd.map(|usd| usd.to_string());
        let said = usd.as_deref().or(got.unpriced_because).unwrap();
        assert_eq!(format!("{} {said}", got.status.name()), want, "{line}");
    }
}

#[test]
fn units_are_charged_by_the_piece() {
    let book = book(&[MAKER, CLOUD]);
    let ask = |provider, model, usage| {
        let asked = Asked {
            provider,
            model,
            tier: None,
            facts: &[("geo", "us")],
            usage,
        };
        price(&book, asked)
    };
    let searched = |n| {
        let mut usage = usage(&[(Bucket::Input, 1_000_000)]);
        usage.set_unit(Unit::WebSearches, Quantity::whole(n));
        usage
    };
    // A modifier is for tokens, not for fees.
    assert_eq!(ask("maker", "m-1", searched(2)).usd, Some(Usd::new(332, 2)));
    assert_eq!(ask("cloud", "m-1", searched(2)).usd, Some(Usd::new(302, 2)));
    assert_eq!(ask("maker", "deaf", searched(2)).status, Status::Assumed);
    assert_eq!(ask("maker", "deaf", searched(0)).status, Status::Exact);
    // Three queries are one prompt, which is what is charged, counted or not.
    let mut counted = searched(3);
    counted.set_unit(Unit::GroundedPrompts, Quantity::whole(1));
    for usage in [searched(3), counted] {
        let priced = ask("maker", "seer", usage);
        assert_eq!(priced.usd, Some(Usd::new(1_035, 3)));
        assert_eq!(priced.status, Status::Exact);
    }
    assert_eq!(ask("maker", "seer", searched(0)).usd, Some(Usd::from(1)));
    let mut spoken = Usage::new();
    spoken.set_unit(Unit::AudioSeconds, Quantity::thousandths(1_500));
    assert_eq!(
        ask("maker", "scribe", spoken.clone()).usd,
        Some(Usd::new(15, 5))
    );
    assert_eq!(
        ask("maker", "m-1", spoken).unpriced_because,
        Some("no_rate")
    );
}

#[test]
fn units_stand_for_tokens_where_a_row_says_so() {
    let book = book(&[MAKER]);
    let ask = |characters| {
        let mut usage = usage(&[(Bucket::Input, 1_000_000)]);
        usage.set_unit(Unit::Characters, Quantity::whole(characters));
        let asked = Asked {
            provider: "maker",
            model: "embed",
            tier: None,
            facts: &[],
            usage,
        };
        let priced = price(&book, asked);
        (priced.status, priced.usd)
    };
    // Four characters a token: the same, but only the count is certain.
    assert_eq!(ask(4_000_000), (Status::Exact, Some(Usd::new(1, 1))));
    assert_eq!(ask(0), (Status::Assumed, Some(Usd::new(1, 1))));
    assert_eq!(ask(40), (Status::Exact, Some(Usd::new(1, 6))));
}

#[test]
fn a_router_is_charged_by_the_model_that_it_chose() {
    let book = book(&[MAKER, CLOUD]);
    let ask = |requested, served| {
        let priced = book.price(&Call {
            provider: "cloud",
            model: served,
            model_requested: Some(requested),
            unix_ms: 0,
            service_tier: None,
            usage: &usage(&[(Bucket::Input, 1_000_000)]),
            inputs: None,
            context: &BTreeMap::new(),
        });
        (priced.status, priced.usd)
    };
    let chosen = Some("arn:1:profile/us.m-1");
    assert_eq!(
        ask("arn:1:router/r", chosen),
        (Status::Assumed, Some(Usd::new(33, 1)))
    );
    assert_eq!(ask("arn:1:router/r", None), (Status::Unpriced, None));
    assert_eq!(ask("arn:1:other/r", chosen), (Status::Unpriced, None));
    assert_eq!(
        ask("m-1", chosen),
        (Status::Exact, Some(Usd::from(3))),
        "what was asked for is charged elsewhere"
    );
}

#[test]
fn later_files_override_name_by_name() {
    let book = book(&[MAKER, LATER]);
    let ask = |model| {
        let mut usage = usage(&[(Bucket::Input, 1_000_000)]);
        usage.set_unit(Unit::WebSearches, Quantity::whole(1));
        let asked = Asked {
            provider: "maker",
            model,
            tier: None,
            facts: &[],
            usage,
        };
        let priced = price(&book, asked);
        (
            priced.usd,
            priced.row.unwrap().split(':').next().unwrap().to_owned(),
        )
    };
    assert_eq!(ask("m-1"), (Some(Usd::new(301, 2)), "0.toml".to_owned()));
    assert_eq!(
        ask("m-1-20260101"),
        (Some(Usd::new(101, 2)), "1.toml".to_owned())
    );
    assert_eq!(book.checked().as_deref(), Some("2026-11-12"));
}

#[test]
fn row_ids_follow_what_decides_a_cost() {
    let id = |text: &str| {
        let book = book(&[text]);
        let row = &book.model("maker", "m-1").unwrap().rows[0];
        row.id.clone()
    };
    assert_eq!(id(MAKER), id(&MAKER.replace("2026-11-09", "2026-11-10")));
    assert_ne!(
        id(MAKER),
        id(&MAKER.replace(r#"input = "3""#, r#"input = "3.1""#))
    );
    assert_ne!(book(&[MAKER]).version(), book(&[LATER]).version());
}

#[test]
fn the_ceiling_is_the_dearest_rate() {
    let book = book(&[MAKER, CLOUD]);
    let usage = usage(&[(Bucket::Input, 1_000_000), (Bucket::Output, 1_000_000)]);
    let ceiling = |provider| {
        book.ceiling(&Call {
            provider,
            model: Some("new"),
            model_requested: None,
            unix_ms: 0,
            service_tier: None,
            usage: &usage,
            inputs: None,
            context: &BTreeMap::new(),
        })
    };
    assert_eq!(ceiling("maker"), Usd::from(36));
    assert_eq!(
        ceiling("cloud"),
        Usd::new(215, 1),
        "the dearest region counts"
    );
    assert_eq!(ceiling("nobody"), Usd::from(36));
}

/// Requests of a batch are summed by these classes, so that each sum has one price.
#[test]
fn prices_change_only_between_classes_of_input() {
    let book = Book::load(Book::shipped()).unwrap();
    let models = book.providers.iter().flat_map(Provider::all_models);
    let rows: Vec<_> = models.flat_map(|model| &model.rows).collect();
    let mut n_long = 0;
    for row in rows {
        let (first, last) = (row.input_min, row.input_max);
        n_long += u64::from(first > 0);
        let (of_first, of_last) = (
            tollmesh_usage::batch::class_of(first),
            tollmesh_usage::batch::class_of(last),
        );
        assert_eq!(
            *of_first.start(),
            first,
            "{}: no class begins there",
            row.id
        );
        assert_eq!(*of_last.end(), last, "{}: no class ends there", row.id);
    }
    assert!(n_long > 0);
}
