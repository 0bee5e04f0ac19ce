//! All price tables, checked and ready.

use std::collections::HashMap;

use jiff::civil::Date;
use sha2::{Digest, Sha256};

use crate::condition::lower;
use crate::cost::{Call, Priced, Usd};
use crate::file::{self, Model, PriceFile};
use crate::overrides::Overrides;
use crate::past;
use crate::provider::{self, Provider};
use crate::reckon;
use crate::shipped;

/// A price file as it was read.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its name, for messages and row ids: `openai.toml`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A mistake in a price file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {place}: {what}")]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Model and row, or key.
    pub place: String,
    /// What is wrong, and the remedy.
    pub what: String,
}

/// Price tables.
#[derive(Debug, Default)]
pub struct Book {
    providers: Vec<Provider>,
    /// Provider names and aliases, lower case, to indices.
    by_name: HashMap<String, usize>,
    version: String,
    checked: Option<Date>,
    overrides: Option<Overrides>,
}

impl Book {
    /// Reads all files; on any mistake tells all of them. Later files override earlier ones of
    /// the same provider, name by name: a model name is looked up in the last file first.
    pub fn load(files: &[SourceFile]) -> Result<Book, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut read = Vec::new();
        for source in files {
            let (file, found) = file::read(source);
            problems.extend(found);
            read.extend(file);
        }
        let mut book = Book {
            version: digest(files),
            checked: newest_check(&read),
            ..Book::default()
        };
        problems.extend(book.add_providers(&read));
        match problems.is_empty() {
            true => Ok(book),
            false => Err(problems),
        }
    }

    /// Rows that ended before that instant, in milliseconds since 1970, and that a later file of
    /// the same provider changes or leaves out without a `fix` that says why. Such files load: the
    /// tables they were copied from may have been corrected since.
    pub fn past_edits(files: &[SourceFile], now_ms: i64) -> Vec<Problem> {
        let read: Vec<PriceFile> = files.iter().filter_map(|f| file::read(f).0).collect();
        past::edits(&read, now_ms)
    }

    /// The same tables under an operator's own terms, with all mistakes of that file. The terms
    /// are part of [`Book::version`].
    pub fn with_overrides(mut self, source: &SourceFile) -> Result<Book, Vec<Problem>> {
        self.overrides = Some(Overrides::read(source)?);
        let list = SourceFile {
            name: "list".to_owned(),
            text: self.version,
        };
        self.version = digest(&[list, source.clone()]);
        Ok(self)
    }

    /// The tables that ship with this build.
    pub fn shipped() -> &'static [SourceFile] {
        shipped::files()
    }

    /// The digest that events carry as `pricing_version`: SHA-256 over names and texts of all
    /// files, in hexadecimal.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The newest `checked` date of any row, `YYYY-MM-DD`.
    pub fn checked(&self) -> Option<String> {
        self.checked.map(|date| date.to_string())
    }

    /// What the call costs.
    pub fn price(&self, call: &Call<'_>) -> Priced {
        match &self.overrides {
            None => self.list_price(call).0,
            Some(overrides) => self.net_price(overrides, call),
        }
    }

    /// The price by the public list, and the id of the model that it is for.
    fn list_price(&self, call: &Call<'_>) -> (Priced, Option<&str>) {
        match reckon::price(self.provider(call.provider), call) {
            Ok((priced, id)) => (priced, Some(id)),
            Err(reason) => (Priced::unpriced(reason), None),
        }
    }

    fn net_price(&self, overrides: &Overrides, call: &Call<'_>) -> Priced {
        let own = lower(call.provider);
        let provider = self.provider(call.provider);
        let mut names: Vec<&str> = provider.map_or_else(Vec::new, Provider::names);
        names.push(&own);
        let meant = overrides.meant(call, &names);
        let call = match &meant {
            None => *call,
            Some(meant) => Call {
                model: meant.model,
                model_requested: meant.model_requested,
                context: &meant.context,
                ..*call
            },
        };
        let (mut priced, id) = self.list_price(&call);
        overrides.apply(&call, &names, id, &mut priced);
        priced
    }

    /// The most that a call whose model has no price may cost: for each class the dearest rate
    /// that the provider, or where it is unknown anybody, charges for it at that instant. Budgets
    /// charge this, so that a new model is no way around them. Counts too large for 28 digits cost
    /// [`Usd::MAX`].
    pub fn ceiling(&self, call: &Call<'_>) -> Usd {
        let own = self.provider(call.provider).filter(|p| p.prices_tokens());
        let providers = match own {
            Some(own) => std::slice::from_ref(own),
            None => self.providers.as_slice(),
        };
        reckon::ceiling(providers, call)
    }

    /// The names of all providers, in the files' order.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.providers.iter().map(|p| p.name.as_str())
    }

    /// Every model with the name of its provider, in the files' order; a model that a later file
    /// overrides comes after the one that does. Inherited models are listed where they stand.
    pub fn models(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.providers
            .iter()
            .flat_map(|p| p.own_models().map(|m| (p.name.as_str(), m)))
    }

    /// The model that a provider's name for it means.
    pub fn model(&self, provider: &str, name: &str) -> Option<&Model> {
        Some(&self.provider(provider)?.find(name)?.model)
    }

    pub(crate) fn provider(&self, name: &str) -> Option<&Provider> {
        let index = self.by_name.get(name).or_else(|| {
            let lower = name.to_lowercase();
            self.by_name.get(&lower)
        })?;
        self.providers.get(*index)
    }

    fn add_providers(&mut self, files: &[PriceFile]) -> Vec<Problem> {
        let mut problems = Vec::new();
        for name in provider::names(files) {
            let own = |f: &&PriceFile| f.header.provider == name;
            let own: Vec<&PriceFile> = files.iter().filter(own).collect();
            let index = self.providers.len();
            let aliases = own.iter().flat_map(|f| f.header.aliases.clone());
            for alias in aliases.chain([name.clone()]) {
                let other = self.by_name.insert(alias.clone(), index);
                if let Some(other) = other.filter(|o| *o != index) {
                    problems.extend(self.twice(&own, &alias, other));
                }
            }
            let (provider, found) = provider::assemble(name, &own, files);
            self.providers.push(provider);
            problems.extend(found);
        }
        problems
    }

    fn twice(&self, own: &[&PriceFile], alias: &str, other: usize) -> Option<Problem> {
        let other = self.providers.get(other).map_or("", |p| p.name.as_str());
        Some(Problem {
            file: own.first()?.name.clone(),
            place: "file".to_owned(),
            what: format!("the name \"{alias}\" is also one of provider {other}"),
        })
    }
}

fn digest(files: &[SourceFile]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        for text in [&file.name, &file.text] {
            hash.update(text.len().to_le_bytes());
            hash.update(text);
        }
    }
    format!("{:x}", hash.finalize())
}

fn newest_check(files: &[PriceFile]) -> Option<Date> {
    let rows = files.iter().flat_map(|f| &f.models).flat_map(|m| &m.rows);
    let fees = files.iter().flat_map(|f| &f.fees);
    let dates = rows.filter_map(|r| r.checked);
    dates.chain(fees.filter_map(|f| f.checked)).max()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tollmesh_usage::{Bucket, Quantity, Unit, Usage};

    use super::*;
    use crate::cost::Status;

    const MAKER: &str = r#"
schema = 1
provider = "maker"
aliases = ["maker-api"]
tier_facts = ["speed"]
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
id = "scribe"
rate = [{ audio_seconds = "0.36/3600", src = "list", checked = 2026-11-09 }]
[[modifier]]
id = "geo"
when = { geo = "us" }
models = ["m-*"]
times = "1.1"
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
[inherit]
tiers = ["standard"]
[[model]]
id = "us.m-1"
rate = [{ input = "3.30", output = "16.50", src = "https://cloud.example", checked = 2026-11-09 }]
"#;

    const LATER: &str = r#"
schema = 1
provider = "maker"
[[model]]
id = "m-1"
match = ["m-1-20260101"]
rate = [{ input = "1", output = "1", src = "https://maker.example", checked = 2026-11-12 }]
"#;

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
            context: &facts.collect::<BTreeMap<_, _>>(),
        })
    }

    #[test]
    fn each_call_has_its_row_and_its_reason() {
        use Bucket::{AudioInput, AudioOutput, CacheRead, CacheWrite1h, Input, Output, Reasoning};
        const M: u64 = 1_000_000;
        let text = |usd: &str| Ok(usd.to_owned());
        let book = book(&[MAKER, CLOUD]);
        type Want = Result<String, &'static str>;
        type Facts<'a> = &'a [(&'a str, &'a str)];
        type Counts<'a> = &'a [(Bucket, u64)];
        type Row<'a> = (
            &'a str,
            &'a str,
            Option<&'a str>,
            Facts<'a>,
            Counts<'a>,
            Want,
            Status,
        );
        let cases: &[Row<'_>] = &[
            (
                "maker",
                "m-1",
                None,
                &[],
                &[(Input, M), (Output, M)],
                text("18"),
                Status::Exact,
            ),
            (
                "Maker-API",
                "M-1-2026-01-01",
                None,
                &[],
                &[(Input, M)],
                text("3"),
                Status::Exact,
            ),
            (
                "maker",
                "m-1",
                Some("BATCH"),
                &[],
                &[(Input, M)],
                text("1.5"),
                Status::Exact,
            ),
            (
                "maker",
                "m-1",
                None,
                &[("speed", "fast")],
                &[(Input, M)],
                text("6"),
                Status::Exact,
            ),
            (
                "maker",
                "m-1",
                None,
                &[("speed", "standard")],
                &[(Input, M)],
                text("3"),
                Status::Exact,
            ),
            (
                "maker",
                "m-1",
                Some("batch"),
                &[("speed", "fast")],
                &[(Input, M)],
                Err("no_row"),
                Status::Unpriced,
            ),
            (
                "maker",
                "m-1",
                None,
                &[("geo", "us")],
                &[(Input, M)],
                text("3.3"),
                Status::Exact,
            ),
            (
                "maker",
                "deaf",
                None,
                &[("geo", "us")],
                &[(Input, M)],
                text("1"),
                Status::Exact,
            ),
            (
                "maker",
                "m-1",
                None,
                &[],
                &[(Reasoning, M)],
                text("15"),
                Status::Exact,
            ),
            (
                "maker",
                "m-1",
                None,
                &[],
                &[(CacheWrite1h, M)],
                text("4"),
                Status::Assumed,
            ),
            (
                "maker",
                "m-1",
                None,
                &[],
                &[(CacheRead, M)],
                text("3"),
                Status::Assumed,
            ),
            (
                "maker",
                "m-1",
                None,
                &[],
                &[(AudioInput, M)],
                text("30"),
                Status::Exact,
            ),
            (
                "maker",
                "m-1",
                None,
                &[],
                &[(AudioOutput, M)],
                text("15"),
                Status::Assumed,
            ),
            (
                "maker",
                "deaf",
                None,
                &[],
                &[(AudioOutput, M)],
                Err("no_rate"),
                Status::Unpriced,
            ),
            (
                "maker",
                "deaf",
                None,
                &[],
                &[(AudioOutput, 0)],
                text("0"),
                Status::Exact,
            ),
            (
                "maker",
                "m-1",
                None,
                &[],
                &[(Input, u64::MAX)],
                text("55340232221128.654845"),
                Status::Exact,
            ),
            (
                "maker",
                "m-1",
                Some("turbo"),
                &[],
                &[(Input, M)],
                Err("unknown_tier"),
                Status::Unpriced,
            ),
            (
                "maker",
                "m-11",
                None,
                &[],
                &[(Input, M)],
                Err("unknown_model"),
                Status::Unpriced,
            ),
            (
                "maker",
                "",
                None,
                &[],
                &[(Input, M)],
                Err("no_model"),
                Status::Unpriced,
            ),
            (
                "maker",
                "m-1",
                None,
                &[],
                &[],
                Err("no_usage"),
                Status::Unpriced,
            ),
            (
                "nobody",
                "m-1",
                None,
                &[],
                &[(Input, M)],
                Err("unknown_provider"),
                Status::Unpriced,
            ),
            (
                "cloud",
                "us.m-1",
                None,
                &[],
                &[(Input, M)],
                text("3.3"),
                Status::Exact,
            ),
            (
                "cloud",
                "arn:1:profile/us.m-1",
                None,
                &[],
                &[(Input, M)],
                text("3.3"),
                Status::Exact,
            ),
            (
                "cloud",
                "arn:1:other/us.m-1",
                None,
                &[],
                &[(Input, M)],
                Err("unknown_model"),
                Status::Unpriced,
            ),
            (
                "cloud",
                "m-1",
                None,
                &[("geo", "us")],
                &[(Input, M)],
                text("3"),
                Status::Exact,
            ),
            (
                "cloud",
                "m-1",
                Some("batch"),
                &[],
                &[(Input, M)],
                Err("unknown_tier"),
                Status::Unpriced,
            ),
        ];
        for (provider, model, tier, facts, counts, want, status) in cases {
            let usage = usage(counts);
            let asked = Asked {
                provider,
                model,
                tier: *tier,
                facts,
                usage,
            };
            let got = price(&book, asked);
            let usd = got.usd.map(|usd| usd.to_string());
            let name = format!("{provider} {model} {tier:?} {facts:?} {counts:?}");
            assert_eq!(
                usd.ok_or(got.unpriced_because.unwrap_or("")),
                *want,
                "{name}"
            );
            assert_eq!(got.status, *status, "{name}");
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
                context: &BTreeMap::new(),
            })
        };
        assert_eq!(ceiling("maker"), Usd::from(36));
        assert_eq!(ceiling("cloud"), Usd::new(198, 1));
        assert_eq!(ceiling("nobody"), Usd::from(36));
    }
}
