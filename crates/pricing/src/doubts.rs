//! What an operator's own terms say and seldom mean: names that nothing has, amounts out of scale.

use rust_decimal::Decimal;
use tollmesh_usage::Bucket;

use crate::book::{Book, Problem};
use crate::condition::lower;
use crate::file::Model;
use crate::names::{Glob, SNAP};
use crate::overrides::{Deployment, Overrides, Terms};
use crate::provider::Provider;

/// Contracts are discounts, and surcharges of some percent; a factor or rate that is that many
/// times the list's is a slip of the point.
const DEARER_TIMES_MAX: Decimal = Decimal::TEN;

/// The facts that calls may have without a table or deployment that names them: what is read out of
/// hosts, paths and answers.
const FACTS: [&str; 9] = [
    "data_residency",
    "inference_geo",
    "latency",
    "region",
    "search_context_size",
    "speed",
    "traffic_type",
    "vertex_location",
    "azure_zone",
];

impl Book {
    /// What the operator's own terms say and seldom mean, each with its remedy. They hold all the
    /// same.
    pub fn doubts(&self) -> Vec<Problem> {
        let Some(own) = &self.overrides else {
            return Vec::new();
        };
        let mut doubts = Doubts {
            book: self,
            own,
            found: Vec::new(),
        };
        for (n, terms) in own.terms.iter().enumerate() {
            let place = format!("override {}", terms.id);
            if own.terms.iter().take(n).any(|other| other.id == terms.id) {
                let what =
                    "`id` stands twice, so that a cost does not tell whose it is; rename one";
                doubts.add(&place, what.to_owned());
            }
            doubts.look_at_names(terms, &place);
            doubts.look_at_amounts(terms, &place);
        }
        for deployment in &own.deployments {
            doubts.look_at_deployment(deployment);
        }
        doubts.found
    }

    /// Whether any provider's table has a model of that name, or the operator's own terms have.
    pub fn knows(&self, model: &str) -> bool {
        let name = lower(model);
        let is_own = |own: &Overrides| {
            let deployed = own.deployments.iter().any(|d| *d.name == *name);
            deployed || own.terms.iter().any(|t| t.prices(&name))
        };
        self.providers.iter().any(|p| p.find(model).is_some())
            || self.overrides.as_ref().is_some_and(is_own)
    }
}

/// What was found so far.
struct Doubts<'b> {
    book: &'b Book,
    own: &'b Overrides,
    found: Vec<Problem>,
}

impl Doubts<'_> {
    fn add(&mut self, place: &str, what: String) {
        self.found.push(Problem {
            file: self.own.file.clone(),
            place: place.to_owned(),
            what,
        });
    }

    fn look_at_names(&mut self, terms: &Terms, place: &str) {
        for fact in terms.when.facts() {
            if !self.is_fact(fact) {
                let facts = self.facts().join("`, `");
                self.add(place, format!(
                    "`when.{fact}`: no call is known to have it; expected `provider`, `model`, a \
                     fact of your [[deployment]]s or one of `{facts}`"
                ));
            }
        }
        // Terms with rates are for models that no list need have.
        if !terms.rates.is_empty() {
            return;
        }
        for glob in terms.provider.iter().filter(|glob| !is_any(glob)) {
            if self.book.providers.iter().any(|p| is_of(glob, p)) {
                continue;
            }
            self.add(place, format!(
                "`when.provider`: no table is of \"{glob}\"; `tollmesh prices show MODEL` tells how \
                 providers are called"
            ));
        }
        for glob in terms.model.iter().filter(|glob| !is_any(glob)) {
            let mut of = self.book.providers.iter().filter(|p| terms.is_of(p));
            let name = glob.to_string();
            if of.any(|p| has(p, glob)) || self.own.terms.iter().any(|t| t.prices(&name)) {
                continue;
            }
            let is_deployed = self.own.deployments.iter().any(|d| glob.matches(&d.name));
            self.add(
                place,
                match is_deployed {
                    true => format!(
                        "`when.model`: \"{glob}\" is a deployment, whose calls are charged as its \
                     `model`; name that one, or a fact of the deployment"
                    ),
                    false => format!("`when.model`: no table has a model \"{glob}\""),
                },
            );
        }
    }

    fn look_at_amounts(&mut self, terms: &Terms, place: &str) {
        if let Some(times) = terms.times.filter(|times| *times > DEARER_TIMES_MAX) {
            self.add(
                place,
                format!(
                    "`times` = \"{times}\" makes a call {times} times as dear; \"0.76\" is 24 % off"
                ),
            );
        }
        for (bucket, rate) in &terms.rates {
            let Some(dearest) = self.dearest(terms, *bucket) else {
                continue;
            };
            let rate = rate.as_decimal();
            let bound = dearest.checked_mul(DEARER_TIMES_MAX);
            if bound.is_some_and(|bound| rate > bound) {
                self.add(&format!("{place} rate"), format!(
                    "`{}` = \"{rate}\" is more than {DEARER_TIMES_MAX} times the dearest price of \
                     the tables for it, {dearest}; rates are US dollars for 1,000,000 tokens",
                    bucket.name()
                ));
            }
        }
    }

    /// The dearest rate of the models that the terms are for; of all models, where no table has one.
    fn dearest(&self, terms: &Terms, bucket: Bucket) -> Option<Decimal> {
        let of = |model: &Model| {
            let rates = model.rows.iter().filter_map(|row| row.charge(bucket));
            rates.map(|(rate, _)| rate.as_decimal()).max()
        };
        let is_meant = |model: &&Model| {
            let names = names(model);
            names
                .iter()
                .any(|name| terms.model.iter().any(|g| g.matches(name)))
        };
        let providers = || self.book.providers.iter();
        let meant = providers()
            .filter(|p| terms.is_of(p))
            .flat_map(Provider::all_models);
        let meant = meant.filter(is_meant).filter_map(of).max();
        let all = || {
            providers()
                .flat_map(Provider::all_models)
                .filter_map(of)
                .max()
        };
        meant.or_else(all).filter(|rate| !rate.is_zero())
    }

    fn look_at_deployment(&mut self, deployment: &Deployment) {
        let Deployment {
            provider,
            name,
            model,
            ..
        } = deployment;
        let place = format!("deployment {name}");
        if self.book.misleads(deployment) {
            self.add(
                &place,
                format!(
                    "`name`: to a table \"{name}\" is another model than \"{model}\"; budgets on \
                     \"{model}\" do not hold for this name, and those on \"{name}\" do; rename the \
                     deployment"
                ),
            );
        }
        let model_name = lower(model);
        let is_priced = |terms: &Terms| {
            let is_of = terms.provider.iter().any(|glob| glob.matches(provider));
            is_of && terms.prices(&model_name)
        };
        if self.own.terms.iter().any(is_priced) {
            return;
        }
        match self.book.provider(provider) {
            None => self.add(&place, format!("`provider`: no table is of \"{provider}\"")),
            Some(of) if of.find(model).is_none() => self.add(
                &place,
                format!(
                    "`model`: no table of {} has \"{model}\"; its calls are unpriced",
                    of.name
                ),
            ),
            Some(_) => {}
        }
    }

    fn is_fact(&self, fact: &str) -> bool {
        let deployed = self.own.deployments.iter();
        self.facts().contains(&fact) || deployed.flat_map(|d| d.facts.keys()).any(|f| f == fact)
    }

    /// The facts that calls may have and tables ask for.
    fn facts(&self) -> Vec<&str> {
        let providers = self.book.providers.iter();
        let mut facts: Vec<&str> = providers.flat_map(Provider::facts).chain(FACTS).collect();
        facts.sort_unstable();
        facts.dedup();
        facts
    }
}

fn is_any(glob: &Glob) -> bool {
    *glob == Glob::new("*")
}

fn is_of(glob: &Glob, provider: &Provider) -> bool {
    provider.names().iter().any(|name| glob.matches(name))
}

/// Whether a name that fits may be one of the provider's models. A glob may be of names that only
/// another glob of the table covers, so that its begin decides.
fn has(provider: &Provider, glob: &Glob) -> bool {
    let text = glob.to_string();
    let Some(begin) = text.find(['*', '?', '#']).and_then(|end| text.get(..end)) else {
        return provider.find(&text).is_some();
    };
    let may_be = |name: &String| {
        let plain = name.split(['*', '?', '#']).next().unwrap_or_default();
        glob.matches(name) || plain.starts_with(begin) || begin.starts_with(plain)
    };
    provider
        .all_models()
        .any(|model| names(model).iter().any(may_be))
}

/// A model's id and names, lower case and without dates.
fn names(model: &Model) -> Vec<String> {
    let names = model.matches.iter().chain([&model.id]);
    names
        .map(|name| name.to_lowercase().replace(SNAP, ""))
        .collect()
}

impl Terms {
    fn is_of(&self, provider: &Provider) -> bool {
        self.provider.iter().any(|glob| is_of(glob, provider))
    }

    /// Whether they are a price of their own for models of that name (lower case).
    fn prices(&self, name: &str) -> bool {
        !self.rates.is_empty() && self.model.iter().any(|glob| glob.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use crate::book::SourceFile;

    use super::*;

    fn book(own: &str) -> Book {
        let file = |text: &str| SourceFile {
            name: "o.toml".to_owned(),
            text: text.to_owned(),
        };
        let book = Book::load(Book::shipped()).unwrap();
        book.with_overrides(&file(own)).unwrap()
    }

    #[test]
    fn slips_are_told() {
        let found = book(
            r#"
schema = 1
[[override]]
id = "a"
when = { provider = "opnai", modle = "gpt-4o" }
times = "76"
[[override]]
id = "a"
when = { provider = "openai", model = ["gpt-4o-mimi", "prod-chat", "gtp-*"] }
times = "0.5"
[[override]]
id = "dear"
when = { provider = "openai", model = "gpt-4o" }
rate = { input = "2500", output = "10" }
[[override]]
id = "own"
when = { provider = "vllm", model = "llama-*" }
rate = { output = "200000" }
[[deployment]]
provider = "azure"
name = "prod-chat"
model = "gpt-4o-2024-08-66"
[[deployment]]
provider = "azur"
name = "other"
model = "gpt-4o"
"#,
        )
        .doubts();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        let begins = [
            "o.toml: override a: `when.modle`: no call is known to have it; expected `provider`, ",
            "o.toml: override a: `when.provider`: no table is of \"opnai\"",
            "o.toml: override a: `times` = \"76\" makes a call 76 times as dear",
            "o.toml: override a: `id` stands twice",
            "o.toml: override a: `when.model`: no table has a model \"gpt-4o-mimi\"",
            "o.toml: override a: `when.model`: \"prod-chat\" is a deployment",
            "o.toml: override a: `when.model`: no table has a model \"gtp-*\"",
            "o.toml: override dear rate: `input` = \"2500\" is more than 10 times",
            "o.toml: override own rate: `output` = \"200000\" is more than 10 times",
            "o.toml: deployment prod-chat: `model`: no table of azure has \"gpt-4o-2024-08-66\"",
            "o.toml: deployment other: `provider`: no table is of \"azur\"",
        ];
        assert_eq!(found.len(), begins.len(), "{found:#?}");
        for (found, begin) in found.iter().zip(begins) {
            assert!(found.starts_with(begin), "{found}\n{begin}");
        }
    }

    #[test]
    fn what_people_mean_is_no_doubt() {
        let book = book(
            r#"
schema = 1
[[override]]
id = "a"
when = { provider = ["anthropic", "azure*", "aws-bedrock"], model = "claude-*", region = "eu-*" }
times = "0.76"
[[override]]
id = "b"
when = { model = ["gpt-4o-2024-08-06", "gpt-4o-mini-2024-*", "gemini-2.5-*"], speed = "fast" }
times = "1.1"
[[override]]
id = "own"
when = { provider = "vllm", model = "llama-*" }
rate = { input = "0.10", output = "0.20" }
[[override]]
id = "lane"
when = { provider = "azure", lane = "ptu" }
times = "0"
[[deployment]]
provider = "azure"
name = "prod-chat"
model = "gpt-4o-2024-08-06"
lane = "ptu"
[[deployment]]
provider = "vllm"
name = "small"
model = "llama-8b"
"#,
        );
        assert_eq!(book.doubts(), []);
        for (model, is_known) in [
            ("gpt-4o", true),
            ("GPT-4o-mini-2024-07-18", true),
            ("llama-70b", true),
            ("Prod-Chat", true),
            ("gpt-4o-mimi", false),
        ] {
            assert_eq!(book.knows(model), is_known, "{model}");
        }
        assert!(Book::load(Book::shipped()).unwrap().doubts().is_empty());
    }
}
