//! An operator's own terms: contracts, resellers' rates, names of deployments.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use tollmesh_usage::{Bucket, Unit};
use toml::{Table, Value};

use crate::amount::{PER_MILLION_SCALE, Rate, exact_product, exact_sum};
use crate::book::{Problem, SourceFile};
use crate::condition::{Condition, lower};
use crate::cost::{Call, Line, Priced, Reason, Status, Usd};
use crate::fields::{Fields, Report};
use crate::names::{Glob, without_date};
use crate::provider::Provider;
use crate::table::Span;

/// The only schema of override files there is.
const SCHEMA: i64 = 1;

/// What an operator's file says.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) file: String,
    pub(crate) terms: Vec<Terms>,
    pub(crate) deployments: Vec<Deployment>,
}

/// One `[[override]]`: what certain calls cost by contract.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) id: String,
    pub(crate) provider: Vec<Glob>,
    pub(crate) model: Vec<Glob>,
    pub(crate) when: Condition,
    pub(crate) span: Span,
    pub(crate) times: Option<Decimal>,
    pub(crate) rates: Vec<(Bucket, Rate)>,
    pub(crate) units: Vec<(Unit, Rate)>,
}

/// One `[[deployment]]`: what a free name stands for.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) provider: String,
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) facts: BTreeMap<String, String>,
}

/// A call's model and facts after the deployment map.
#[derive(Debug)]
pub(crate) struct Meant<'c> {
    pub(crate) model: Option<&'c str>,
    pub(crate) model_requested: Option<&'c str>,
    pub(crate) context: Cow<'c, BTreeMap<String, String>>,
}

impl Overrides {
    /// Reads the file, with all its mistakes.
    pub(crate) fn read(source: &SourceFile) -> Result<Overrides, Vec<Problem>> {
        let mut report = Report::new(&source.name);
        let mut overrides = Overrides {
            file: source.name.clone(),
            ..Overrides::default()
        };
        match source.text.parse::<Table>() {
            Ok(table) => overrides.fill(Fields::new(table, "file"), &mut report),
            Err(error) => report.add_broken(&source.text, &error),
        }
        let problems = report.into_problems();
        match problems.is_empty() {
            true => Ok(overrides),
            false => Err(problems),
        }
    }

    fn fill(&mut self, mut fields: Fields, report: &mut Report<'_>) {
        if fields.integer("schema", report) != Some(SCHEMA) {
            report.add("file", format!("`schema` must be {SCHEMA}"));
        }
        for (n, table) in (1..).zip(fields.tables("override", report)) {
            self.terms.push(read_terms(table, n, report));
        }
        for (n, table) in (1..).zip(fields.tables("deployment", report)) {
            let deployment = read_deployment(table, n, report);
            let twice =
                |d: &Deployment| d.provider == deployment.provider && d.name == deployment.name;
            if self.deployments.iter().any(twice) {
                let place = format!("deployment {n}");
                report.add(
                    &place,
                    format!("`name` \"{}\" is there already", deployment.name),
                );
            }
            self.deployments.push(deployment);
        }
        fields.finish(report);
    }

    /// What the call's names stand for. `names` are all names of the call's provider.
    pub(crate) fn meant<'c>(&'c self, call: &Call<'c>, names: &[&str]) -> Option<Meant<'c>> {
        let deployment = self.deployments.iter().find(|d| {
            let is_called = |name: &str| *lower(name) == *d.name;
            let called = [call.model_requested, call.model];
            names.contains(&d.provider.as_str()) && called.into_iter().flatten().any(is_called)
        })?;
        let mut context = call.context.clone();
        context.extend(deployment.facts.clone());
        Some(Meant {
            model: Some(&deployment.model),
            model_requested: Some(&deployment.model),
            context: Cow::Owned(context),
        })
    }

    /// The deployments of a model that has these names (lower case; one without a snapshot's date
    /// stands for all of its snapshots).
    pub(crate) fn deployed<'o>(
        &'o self,
        names: &'o BTreeSet<String>,
    ) -> impl Iterator<Item = &'o Deployment> {
        let is_of = |model: &str| {
            let model = model.to_lowercase();
            names.contains(&model) || without_date(&model).is_some_and(|stem| names.contains(stem))
        };
        self.deployments.iter().filter(move |d| is_of(&d.model))
    }

    /// Names of deployments, and what terms say of models' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let deployments = self.deployments.iter().map(|d| d.name.clone());
        deployments.chain(self.model_globs().map(Glob::to_string))
    }

    /// What terms say of models, where they say anything.
    fn model_globs(&self) -> impl Iterator<Item = &Glob> {
        let globs = self.terms.iter().flat_map(|t| &t.model);
        globs.filter(|glob| **glob != Glob::new("*"))
    }

    /// The model that was asked for, where it has no price but one of these terms' own and no table
    /// or terms know the name that the answer gives: a server of one's own answers with whatever name
    /// its model was loaded by. `names` are all names of the call's provider.
    pub(crate) fn stands_in<'c>(
        &self,
        provider: Option<&Provider>,
        call: &Call<'c>,
        names: &[&str],
    ) -> Option<&'c str> {
        let asked = call.model_requested?;
        let own = |t: &&Terms| !t.rates.is_empty() && t.is_of_any(names);
        let is_priced = |name: &str| {
            let name = lower(name);
            let mut own = self.terms.iter().filter(own);
            own.any(|t| t.model.iter().any(|glob| glob.matches(&name)))
        };
        let is_listed = |name: &str| provider.is_some_and(|p| p.find(name).is_some());
        let is_known = call
            .model
            .is_none_or(|served| is_listed(served) || is_priced(served));
        (!is_known && !is_listed(asked) && is_priced(asked)).then_some(asked)
    }

    /// Applies the first terms that hold to a call's list price. `names` are all names of its
    /// provider, `models` those of the model that is charged: of one that was asked for while
    /// another served, no terms hold.
    pub(crate) fn apply(
        &self,
        call: &Call<'_>,
        names: &[&str],
        models: &[&str],
        priced: &mut Priced,
    ) {
        let holding = self.terms.iter().find(|t| {
            let is_model = |m: &str| t.model.iter().any(|g| g.matches(&lower(m)));
            t.is_of_any(names)
                && models.iter().any(|m| is_model(m))
                && t.span.holds(call.unix_ms)
                && t.when.holds(call.context)
        });
        if let Some(terms) = holding {
            self.charge(terms, call, priced);
        }
    }

    fn charge(&self, terms: &Terms, call: &Call<'_>, priced: &mut Priced) {
        let own = match priced.usd {
            Some(_) => terms.net(priced).ok_or(Reason::Overflow),
            // A model of the operator's own: the terms are its only price.
            None if !terms.rates.is_empty() => terms.whole(call, priced),
            None => return,
        };
        match own {
            Ok(net) => {
                priced.net = Some(net);
                priced.net_by = Some(format!("{}:{}", self.file, terms.id));
                if priced.usd.is_none() {
                    priced.usd = Some(net);
                    priced.status = Status::Exact;
                    priced.row = priced.net_by.clone();
                    priced.unpriced_because = None;
                }
            }
            Err(reason) => *priced = Priced::unpriced(reason),
        }
    }
}

impl Terms {
    /// Whether they are for the provider that has these names (lower case).
    fn is_of_any(&self, names: &[&str]) -> bool {
        let is_of = |name: &&str| self.provider.iter().any(|glob| glob.matches(name));
        names.iter().any(is_of)
    }

    /// Each line at its own rate where there is one; the whole times the factor.
    fn net(&self, priced: &Priced) -> Option<Usd> {
        let mut net = Decimal::ZERO;
        for line in &priced.lines {
            let usd = match self.rate(line.what) {
                Some((rate, scale)) => rate.charge(line.amount, Decimal::ONE, scale)?,
                None => line.usd,
            };
            net = exact_sum(net, usd)?;
        }
        exact_product(net, self.times.unwrap_or(Decimal::ONE)).map(|usd| usd.normalize())
    }

    /// The cost where no list has the model.
    fn whole(&self, call: &Call<'_>, priced: &mut Priced) -> Result<Usd, Reason> {
        let mut lines = Vec::new();
        for (bucket, tokens) in call.usage.tokens().filter(|(_, tokens)| *tokens > 0) {
            let (rate, scale) = self.rate(bucket.name()).ok_or(Reason::NoRate)?;
            let amount = Decimal::from(tokens);
            let usd = rate.charge(amount, Decimal::ONE, scale);
            lines.push(Line {
                what: bucket.name(),
                amount,
                rate: rate.as_decimal(),
                times: Decimal::ONE,
                usd: usd.ok_or(Reason::Overflow)?,
                assumed: false,
            });
        }
        if call.usage.has_no_tokens() {
            return Err(Reason::NoRate);
        }
        priced.lines = lines;
        self.net(priced).ok_or(Reason::Overflow)
    }

    /// The rate for a line of that name, and how far its product is moved down.
    fn rate(&self, what: &str) -> Option<(Rate, u32)> {
        let tokens = self.rates.iter().find(|(b, _)| b.name() == what);
        let units = || self.units.iter().find(|(u, _)| u.name() == what);
        tokens
            .map(|(_, rate)| (*rate, PER_MILLION_SCALE))
            .or_else(|| units().map(|(_, rate)| (*rate, 0)))
    }
}

fn read_terms(table: Table, number: usize, report: &mut Report<'_>) -> Terms {
    let mut fields = Fields::new(table, format!("override {number}"));
    let id = fields.required("id", report);
    let place = format!("override {id}");
    let mut when = Fields::new(fields.table("when", report), format!("{place} when"));
    let mut globs = |key| {
        let texts = when.texts(key, report);
        match texts.is_empty() {
            true => vec![Glob::new("*")],
            false => texts.iter().map(|t| Glob::new(t)).collect(),
        }
    };
    let (provider, model) = (globs("provider"), globs("model"));
    let when = Condition::read(when.into_rest(), &place, report);
    let times = fields.money("times", report).map(Rate::as_decimal);
    let mut rate = Fields::new(fields.table("rate", report), format!("{place} rate"));
    let rates = rate.rates(&Bucket::ALL.map(Bucket::name), Bucket::parse, report);
    let units = rate.rates(&Unit::ALL.map(Unit::name), Unit::parse, report);
    rate.finish(report);
    if times.is_none() && rates.is_empty() && units.is_empty() {
        report.add(&place, "changes nothing; give `times`, `rate` or both");
    }
    let span = Span::read(&mut fields, report);
    for documentation in ["contract", "note"] {
        fields.text(documentation, report);
    }
    fields.finish(report);
    Terms {
        id,
        provider,
        model,
        when,
        span,
        times,
        rates,
        units,
    }
}

fn read_deployment(table: Table, number: usize, report: &mut Report<'_>) -> Deployment {
    let mut fields = Fields::new(table, format!("deployment {number}"));
    let mut deployment = Deployment {
        provider: fields.required("provider", report).to_lowercase(),
        name: fields.required("name", report).to_lowercase(),
        model: fields.required("model", report),
        facts: BTreeMap::new(),
    };
    let place = fields.place().to_owned();
    for (fact, value) in fields.into_rest() {
        match value {
            Value::String(text) => drop(deployment.facts.insert(fact, text)),
            _ => report.add(&place, format!("the fact `{fact}` must be a text")),
        }
    }
    deployment
}

#[cfg(test)]
mod tests {
    use tollmesh_usage::Usage;

    use super::*;
    use crate::book::Book;

    const LIST: &str = r#"
schema = 1
provider = "azure"
aliases = ["azure-openai"]
[[model]]
id = "gpt"
rate = [{ input = "2", output = "8", src = "https://a.example", checked = 2026-11-09 }]
[[modifier]]
id = "zone"
when = { azure_zone = "eu" }
times = "1.1"
src = "https://a.example"
checked = 2026-11-09
"#;

    const OWN: &str = r#"
schema = 1
[[override]]
id = "flat"
when = { provider = "azure", model = "gpt", route = "r-*" }
rate = { input = "1" }
[[override]]
id = "acme"
when = { provider = "azure*" }
from = 2026-06-01
until = 2027-06-01
times = "0.76"
contract = "ACME-1"
[[override]]
id = "vllm"
when = { provider = "vllm", model = "own-*" }
rate = { input = "0.10", output = "0.20" }
[[deployment]]
provider = "azure-openai"
name = "Prod-Chat"
model = "gpt"
azure_zone = "eu"
"#;

    fn book(own: &str) -> Result<Book, Vec<Problem>> {
        let file = |name: &str, text: &str| SourceFile {
            name: name.to_owned(),
            text: text.to_owned(),
        };
        Book::load(&[file("azure.toml", LIST)])
            .unwrap()
            .with_overrides(&file("overrides.toml", own))
    }

    fn price(provider: &str, model: &str, month: i8, facts: &[(&str, &str)]) -> Priced {
        let facts = facts.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let date = jiff::civil::date(2026, month, 15);
        let instant = date.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
        let usage = Usage::new()
            .with(Bucket::Input, 1_000_000)
            .with(Bucket::Output, 1_000_000);
        book(OWN).unwrap().price(&Call {
            provider,
            model: Some(model),
            model_requested: None,
            unix_ms: instant.as_millisecond(),
            service_tier: None,
            usage: &usage,
            inputs: None,
            context: &facts.collect(),
        })
    }

    #[test]
    fn the_first_terms_that_hold_make_the_net_cost() {
        for (provider, model, month, facts, usd, net, by) in [
            ("azure", "gpt", 5, &[][..], "10", "10", None),
            ("azure", "gpt", 6, &[], "10", "7.6", Some("acme")),
            (
                "azure",
                "gpt",
                6,
                &[("route", "r-1")],
                "10",
                "9",
                Some("flat"),
            ),
            ("azure", "prod-chat", 6, &[], "11", "8.36", Some("acme")),
            ("vllm", "own-8b", 6, &[], "0.3", "0.3", Some("vllm")),
        ] {
            let priced = price(provider, model, month, facts);
            let text = |usd: Option<Usd>| usd.unwrap().to_string();
            assert_eq!(
                (text(priced.usd).as_str(), text(priced.net).as_str()),
                (usd, net)
            );
            let by = by.map(|id| format!("overrides.toml:{id}"));
            assert_eq!(priced.net_by, by, "{provider} {model} {month}");
        }
        assert_eq!(price("azure", "other", 6, &[]).usd, None);
        assert_eq!(
            price("vllm", "other", 6, &[]).unpriced_because,
            Some("unknown_provider")
        );
    }

    #[test]
    fn terms_are_for_the_model_that_is_charged() {
        let file = |name: &str, text: &str| SourceFile {
            name: name.to_owned(),
            text: text.to_owned(),
        };
        let list = |provider: &str, rest: &str| {
            let row =
                r#"rate = [{ input = "2", src = "https://a.example", checked = 2026-11-09 }]"#;
            let text = format!(
                "schema = 1\nprovider = \"{provider}\"\n{rest}\n[[model]]\nid = \"big\"\n\
                 match = [\"big{{snap}}\", \"big-latest\"]\n{row}\n[[model]]\nid = \"small\"\n{row}\n"
            );
            file(&format!("{provider}.toml"), &text)
        };
        let terms = "schema = 1\n[[override]]\nid = \"half\"\ntimes = \"0.5\"\n\
                     when = { model = [\"big\", \"big-latest\"] }\n\
                     [[override]]\nid = \"own\"\nrate = { input = \"7\" }\n\
                     when = { provider = \"gpu\", model = \"own-*\" }\n\
                     [[override]]\nid = \"dear\"\nrate = { input = \"9\" }\n\
                     when = { provider = \"gpu\", model = \"dear-*\" }\n";
        let book = Book::load(&[
            list("maker", ""),
            list("cloud", "bill_by = \"requested\"\nrouters = [\"router\"]"),
        ]);
        let book = book
            .unwrap()
            .with_overrides(&file("o.toml", terms))
            .unwrap();
        let usage = Usage::new().with(Bucket::Input, 1_000_000);
        for (provider, served, requested, net) in [
            ("maker", Some("big-2026-01-01"), Some("big"), Some(1)),
            ("maker", Some("big"), Some("small"), Some(1)),
            ("maker", Some("small"), Some("big"), Some(2)),
            ("maker", Some("small"), Some("big-latest"), Some(2)),
            ("maker", None, Some("big"), Some(1)),
            ("maker", Some(""), Some("big-latest"), Some(1)),
            ("cloud", Some("small"), Some("big"), Some(1)),
            ("cloud", Some("big"), Some("small"), Some(2)),
            ("cloud", Some("big"), Some("router"), Some(1)),
            ("cloud", Some("big"), None, Some(1)),
            ("gpu", Some("own-1"), Some("other"), Some(7)),
            ("gpu", Some("other"), Some("own-1"), Some(7)),
            ("gpu", Some("other"), Some("OWN-1"), Some(7)),
            ("gpu", Some("other"), Some("another"), None),
            // Known to a table or to terms: what served is what is charged.
            ("maker", Some("small"), Some("own-1"), Some(2)),
            ("maker", Some("other"), Some("own-1"), None),
            ("maker", Some("other"), Some("big"), None),
            ("gpu", Some("dear-1"), Some("own-1"), Some(9)),
            ("gpu", None, Some("own-1"), Some(7)),
        ] {
            let priced = book.price(&Call {
                provider,
                model: served,
                model_requested: requested,
                unix_ms: 0,
                service_tier: None,
                usage: &usage,
                inputs: None,
                context: &BTreeMap::new(),
            });
            let net = net.map(Usd::from);
            assert_eq!(priced.net, net, "{provider} {served:?} for {requested:?}");
        }
    }

    #[test]
    fn mistakes_are_told_at_once() {
        let bad = "schema = 1\n[[override]]\nid = \"a\"\nwhen = {}\n[[override]]\nid = \"b\"\n\
                   rate = { inptu = \"1\", input = 2 }\n[[deployment]]\nname = \"x\"\n";
        let found = book(bad).unwrap_err();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        let begins = [
            "overrides.toml: override a: changes nothing; give `times`, `rate` or both",
            "overrides.toml: override b rate: `input` is of type integer; expected",
            "overrides.toml: override b rate: unknown key `inptu`",
            "overrides.toml: override b: changes nothing",
            "overrides.toml: deployment 1: `provider` is missing",
            "overrides.toml: deployment 1: `model` is missing",
        ];
        assert_eq!(found.len(), begins.len(), "{found:#?}");
        for (found, begin) in found.iter().zip(begins) {
            assert!(found.starts_with(begin), "{found}");
        }
    }

    #[test]
    fn other_terms_are_another_version() {
        assert_ne!(
            book(OWN).unwrap().version(),
            book("schema = 1").unwrap().version()
        );
    }

    #[test]
    fn a_deployment_is_no_name_of_its_model_where_a_table_has_it_for_another() {
        let own = |name: &str, model: &str| {
            format!(
                "schema = 1\n[[deployment]]\nprovider = \"azure\"\nname = \"{name}\"\n\
                 model = \"{model}\"\n"
            )
        };
        for (name, model, is_name) in [
            ("gpt-4", "gpt-4o", false),
            ("GPT-4", "gpt-4o-2024-08-06", false),
            ("gpt-4", "own-llama", false),
            ("gpt-4o-prod", "gpt-4o", true),
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-2024-08-06", true),
            ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", true),
            ("gpt-4.1", "gpt-4.1-2025-04-14", true),
            ("gpt-5-mini", "gpt-5-mini-2025-08-07", true),
            ("o3", "o3-2025-04-16", true),
            ("text-embedding-3-small", "text-embedding-3-small", true),
            // A snapshot with a price of its own.
            ("gpt-4o", "gpt-4o-2024-05-13", false),
            ("openai/gpt-4o", "gpt-4o", true),
        ] {
            let file = SourceFile {
                name: "o.toml".to_owned(),
                text: own(name, model),
            };
            let book = Book::load(Book::shipped()).unwrap();
            let book = book.with_overrides(&file).unwrap();
            let has = book.names_of(model).contains(&name.to_lowercase());
            assert_eq!(has, is_name, "{name} {model}");
            let doubts = book.doubts();
            let told = doubts.iter().any(|d| d.what.contains("another model"));
            assert_eq!(told, !is_name, "{name} {model} {doubts:#?}");
        }
    }

    #[test]
    fn a_deployment_is_a_name_of_its_model() {
        let book = book(OWN).unwrap();
        assert_eq!(book.names_of("GPT"), ["gpt", "prod-chat"]);
        for (name, is_known) in [
            ("gpt", true),
            ("PROD-chat", true),
            ("Own-1", true),
            ("other", false),
        ] {
            assert_eq!(book.knows(name), is_known, "{name}");
        }
        assert!(book.names().any(|name| name == "prod-chat"));
    }
}
