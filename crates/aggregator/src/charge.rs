//! What one event costs: its own usage and the usage nested in it, each at its own rates.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use tollmesh_pricing::cost::{Inputs, Reason};
use tollmesh_pricing::{Book, Call, Priced, Status};
use tollmesh_usage::{Api, Usage, batch};
use tollmesh_wire::event::{Event, ExtraUsage, Kind, Outcome};

use crate::ledger::CostRecord;
use crate::ledger::reprice::Pricer;
use crate::prices::Prices;

/// The facts that a cost depends on.
#[derive(Clone, Copy, Debug)]
pub struct Bill<'a> {
    /// Who bills the call.
    pub provider: &'a str,
    /// The model that served.
    pub model: Option<&'a str>,
    /// The model that the provider was asked for.
    pub model_requested: Option<&'a str>,
    /// When, in milliseconds since 1970.
    pub unix_ms: i64,
    /// The service tier, in the provider's word.
    pub service_tier: Option<&'a str>,
    /// The counts that are charged.
    pub usage: &'a Usage,
    /// Usage charged apart.
    pub extra_usage: &'a [ExtraUsage],
    /// Facts that prices depend on.
    pub context: &'a BTreeMap<String, String>,
    /// Whether it is charged at all.
    pub is_billable: bool,
    /// Whether its own usage is what the requests of a batch used together.
    pub is_batch: bool,
}

/// Whether answers of that API tell what the requests of a batch used together.
pub fn sums_batches(api: &str) -> bool {
    api == Api::OpenAiBatches.name()
}

impl<'a> From<&'a Event> for Bill<'a> {
    /// What the provider charges is priced where it differs from what it processed; calls that
    /// we refused or that a nearer filter counts are no charge of ours. A retrieval is free, but
    /// the usage that it shows is that of a call which was not: the price is for that call's row.
    fn from(event: &'a Event) -> Bill<'a> {
        let is_ours = !matches!(event.outcome, Outcome::Denied | Outcome::Relayed);
        let is_charged = event.billable || event.kind == Kind::LateUsage;
        Bill {
            provider: &event.provider,
            model: event.model.as_deref(),
            // What the provider was asked for: a budget may have put another in the app's place.
            model_requested: event
                .model_put
                .as_deref()
                .or(event.model_requested.as_deref()),
            unix_ms: event.time.as_unix_ms(),
            service_tier: event.service_tier.as_deref(),
            usage: event.billed_usage.as_ref().unwrap_or(&event.usage),
            extra_usage: &event.extra_usage,
            context: &event.pricing_context,
            is_billable: is_charged && is_ours,
            is_batch: sums_batches(&event.api),
        }
    }
}

/// What prices events by the tables that are in force then.
pub fn pricer(prices: Arc<Prices>) -> Pricer {
    Arc::new(move |event| {
        let tables = prices.tables();
        Bill::from(event).price(&tables.book, Arc::clone(&tables.version))
    })
}

impl<'a> Bill<'a> {
    /// What it comes to under these tables, whose version it records.
    pub fn price(&self, book: &Book, version: Arc<str>) -> CostRecord {
        if !self.is_billable {
            return CostRecord::free(version);
        }
        let own = match (self.usage.is_empty(), self.extra_usage.is_empty()) {
            (true, true) => return CostRecord::unpriced(version, Reason::NoUsage.name()),
            (true, false) => nothing_of_its_own(),
            (false, _) => book.price(&self.call()),
        };
        let extra = self.extra_usage.iter();
        let extra = extra
            .map(|extra| book.price(&self.call_of(extra)))
            .collect();
        CostRecord::of(own, extra, Arc::clone(&version))
            .unwrap_or_else(|_| CostRecord::unpriced(version, Reason::Overflow.name()))
    }

    fn call(&self) -> Call<'a> {
        Call {
            provider: self.provider,
            model: self.model,
            model_requested: self.model_requested,
            unix_ms: self.unix_ms,
            service_tier: self.service_tier,
            usage: self.usage,
            inputs: inputs(self.is_batch.then_some(batch::MIXED_KIND), self.usage),
            context: self.context,
        }
    }

    /// The call that this nested usage would be if it stood alone.
    fn call_of(&self, extra: &'a ExtraUsage) -> Call<'a> {
        let own = Call {
            usage: &extra.usage,
            inputs: inputs(Some(&extra.kind), &extra.usage),
            ..self.call()
        };
        match extra.model.as_deref() {
            Some(model) => Call {
                model: Some(model),
                model_requested: None,
                ..own
            },
            None => own,
        }
    }
}

/// How long the inputs are where the counts are a sum over the requests of a batch. Of requests
/// that were summed by the class of their length, the mean has the price of each; of others, or where
/// nobody counted them, the sum tells the most that one can have had.
fn inputs(kind: Option<&str>, usage: &Usage) -> Option<Inputs> {
    let sum = usage.input_total()?;
    let is_of_batch = matches!(kind, Some(batch::KIND | batch::MIXED_KIND));
    let taken = match batch::mean_input(usage) {
        Some(mean) => mean,
        None if is_of_batch => sum,
        None => return None,
    };
    let class = match kind {
        Some(batch::KIND) if taken < sum => batch::class_of(taken),
        _ => 0..=sum,
    };
    let is_one = batch::mean_input(usage) == Some(sum);
    Some(Inputs {
        taken,
        min: if is_one { sum } else { *class.start() },
        max: sum.min(*class.end()),
    })
}

/// The cost of a call whose whole usage is nested.
fn nothing_of_its_own() -> Priced {
    Priced {
        status: Status::Exact,
        usd: Some(Decimal::ZERO),
        net: Some(Decimal::ZERO),
        net_by: None,
        lines: Vec::new(),
        row: None,
        unpriced_because: None,
    }
}

#[cfg(test)]
mod tests {
    use tollmesh_pricing::SourceFile;
    use tollmesh_usage::{Bucket, Quantity, Unit};

    use super::*;

    /// Two models: `small` at 1 and 2 dollars for a million tokens, `large` at ten times that.
    fn book() -> Book {
        let model = |id: &str, input: &str, output: &str| {
            format!(
                "[[model]]\nid = {id:?}\nmatch = [{id:?}]\nrate = [{{ input = {input:?}, \
                 output = {output:?}, src = \"list\", checked = 2026-11-09 }}]\n"
            )
        };
        let head = "schema = 1\nprovider = \"maker\"\ncurrency = \"USD\"\n\
                    [source]\nlist = \"https://maker.example/prices\"\n";
        let (small, large) = (model("small", "1", "2"), model("large", "10", "20"));
        let file = SourceFile {
            name: "maker.toml".into(),
            text: format!("{head}{small}{large}"),
        };
        Book::load(&[file]).unwrap()
    }

    fn tokens(input: u64, output: u64) -> Usage {
        Usage::new()
            .with(Bucket::Input, input)
            .with(Bucket::Output, output)
    }

    fn call() -> Event {
        Event {
            provider: "maker".into(),
            model: Some("small".into()),
            usage: tokens(1_000_000, 1_000_000),
            billable: true,
            ..Event::default()
        }
    }

    fn nested(model: Option<&str>) -> ExtraUsage {
        ExtraUsage {
            kind: "advisor".into(),
            model: model.map(str::to_owned),
            usage: tokens(1_000_000, 0),
        }
    }

    fn batch(kind: Option<&str>, input: u64, n_requests: Option<u64>) -> Event {
        let mut usage = tokens(input, 0);
        if let Some(n) = n_requests {
            usage.set_unit(Unit::Requests, Quantity::whole(n));
        }
        let own = Event {
            provider: "google".into(),
            model: Some("gemini-2.5-pro".into()),
            service_tier: Some("batch".into()),
            billable: true,
            ..Event::default()
        };
        match kind {
            None => Event { usage, ..own },
            Some(kind) => Event {
                extra_usage: vec![ExtraUsage {
                    kind: kind.into(),
                    model: None,
                    usage,
                }],
                ..own
            },
        }
    }

    /// <https://ai.google.dev/gemini-api/docs/pricing>, batch: 0.625 dollars for a million tokens of a
    /// prompt up to 200,000, and 1.25 of a longer one.
    #[test]
    fn requests_of_a_batch_have_the_price_of_their_own_length() {
        let book = Book::load(Book::shipped()).unwrap();
        let (apart, mixed) = (Some(batch::KIND), Some(batch::MIXED_KIND));
        for (kind, input, n_requests, cost) in [
            (apart, 500_000, Some(50), "exact 0.3125"),
            (apart, 1_000_000, Some(4), "exact 1.25"),
            (apart, 400_000, Some(2), "exact 0.25"),
            (apart, 150_000, Some(1), "exact 0.09375"),
            (apart, 500_000, Some(1), "exact 0.625"),
            (apart, 500_000, None, "assumed 0.625"),
            (apart, 100_000, None, "exact 0.0625"),
            (mixed, 500_000, Some(50), "assumed 0.3125"),
            (None, 500_000, Some(50), "assumed 0.3125"),
            (None, 1_000_000, Some(4), "assumed 1.25"),
            (None, 500_000, Some(1), "exact 0.625"),
            (None, 150_000, Some(50), "exact 0.09375"),
            (None, 500_000, None, "exact 0.625"),
        ] {
            let event = self::batch(kind, input, n_requests);
            let record = Bill::from(&event).price(&book, "v".into());
            let total = record.total.map(|total| total.to_string());
            let got = format!("{} {}", record.status.name(), total.unwrap_or_default());
            assert_eq!(got, cost, "{kind:?} {input} {n_requests:?}");
        }
    }

    /// <https://platform.openai.com/docs/api-reference/batch/object>: `request_counts` may be left out.
    #[test]
    fn a_batch_that_does_not_say_how_many_requests_it_had_has_no_exact_price() {
        let book = Book::load(Book::shipped()).unwrap();
        for (input, n_requests, cost) in [
            (500_000, None, "assumed 0.625"),
            (150_000, None, "exact 0.09375"),
            (500_000, Some(1), "exact 0.625"),
            (500_000, Some(50), "assumed 0.3125"),
        ] {
            let event = Event {
                api: Api::OpenAiBatches.name().into(),
                ..batch(None, input, n_requests)
            };
            let record = Bill::from(&event).price(&book, "v".into());
            let total = record.total.map(|total| total.to_string());
            let got = format!("{} {}", record.status.name(), total.unwrap_or_default());
            assert_eq!(got, cost, "{input} {n_requests:?}");
        }
    }

    /// Amazon bills the model that it was asked for, which a budget had put in the place of the
    /// app's; prices: <https://aws.amazon.com/bedrock/pricing/>.
    #[test]
    fn a_model_that_was_put_in_place_of_another_is_the_one_asked_for() {
        let book = Book::load(Book::shipped()).unwrap();
        let price = |asked: &str, put: Option<&str>| {
            let event = Event {
                provider: "bedrock-mantle".into(),
                model_requested: Some(asked.into()),
                model_put: put.map(str::to_owned),
                model: put.or(Some(asked)).map(str::to_owned),
                billable: true,
                usage: Usage::new().with(Bucket::Input, 1_000_000),
                ..Event::default()
            };
            Bill::from(&event).price(&book, "v".into()).total
        };
        let (big, small) = ("openai.gpt-oss-120b-1:0", "openai.gpt-oss-20b-1:0");
        let (dear, cheap) = (price(big, None), price(small, None));
        assert!(cheap.is_some() && cheap < dear, "{cheap:?} {dear:?}");
        assert_eq!(price(big, Some(small)), cheap);
    }

    #[test]
    fn each_kind_of_call_has_its_charge() {
        let book = book();
        for (name, event, cost) in [
            ("a call", call(), "exact 3"),
            (
                "a free endpoint",
                Event {
                    billable: false,
                    ..call()
                },
                "exact 0",
            ),
            (
                "a refused call",
                Event {
                    outcome: Outcome::Denied,
                    ..call()
                },
                "exact 0",
            ),
            (
                "a call that a nearer filter counts",
                Event {
                    outcome: Outcome::Relayed,
                    ..call()
                },
                "exact 0",
            ),
            (
                "a retrieval that shows the usage of a charged call",
                Event {
                    kind: Kind::LateUsage,
                    billable: false,
                    ..call()
                },
                "exact 3",
            ),
            (
                "less is billed than was processed",
                Event {
                    billed_usage: Some(tokens(500_000, 0)),
                    ..call()
                },
                "exact 0.5",
            ),
            (
                "usage of another model within",
                Event {
                    extra_usage: vec![nested(Some("large")), nested(None)],
                    ..call()
                },
                "exact 14",
            ),
            (
                "nothing but nested usage",
                Event {
                    usage: Usage::new(),
                    extra_usage: vec![nested(Some("large"))],
                    ..call()
                },
                "exact 10",
            ),
            (
                "usage that is charged by its parts",
                Event {
                    model: Some("nonesuch".into()),
                    billed_usage: Some(Usage::new()),
                    extra_usage: vec![nested(Some("large")), nested(Some("small"))],
                    ..call()
                },
                "exact 11",
            ),
            (
                "nested usage of a model without a price",
                Event {
                    extra_usage: vec![nested(Some("nonesuch"))],
                    ..call()
                },
                "unpriced unknown_model",
            ),
            (
                "no usage",
                Event {
                    usage: Usage::new(),
                    ..call()
                },
                "unpriced no_usage",
            ),
            (
                "more than an amount holds",
                Event {
                    usage: tokens(u64::MAX, 0),
                    ..call()
                },
                "unpriced overflow",
            ),
        ] {
            let record = Bill::from(&event).price(&book, "v".into());
            let rest = match (record.total, &record.unpriced_because) {
                (Some(total), _) => total.to_string(),
                (None, because) => because.as_deref().unwrap_or("?").to_owned(),
            };
            let got = format!("{} {rest}", record.status.name());
            assert_eq!(got, cost, "{name}");
        }
    }
}
