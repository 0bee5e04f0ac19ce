//! All price tables, checked and ready.

use std::collections::HashMap;

use jiff::civil::Date;
use sha2::{Digest, Sha256};
use tollmesh_usage::{Bucket, Usage};

use crate::condition::lower;
use crate::cost::{Call, Priced, Usd};
use crate::dearest::{self, Dearest};
use crate::file::{self, Model, PriceFile};
use crate::names;
use crate::overrides::Overrides;
use crate::past;
use crate::provider::{self, Provider};
use crate::reckon;
use crate::shipped;

/// Tokens that a rate is for.
const PER_MILLION: u64 = 1_000_000;

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

/// A price file, read and checked by itself, with its mistakes. That is most of the work of loading
/// and needs no other file, so a caller may have several read at a time.
#[derive(Debug)]
pub struct ReadFile {
    file: Option<PriceFile>,
    problems: Vec<Problem>,
}

impl ReadFile {
    /// Reads that file.
    pub fn new(source: &SourceFile) -> ReadFile {
        let (file, problems) = file::read(source);
        ReadFile { file, problems }
    }
}

/// Price tables.
#[derive(Debug, Default)]
pub struct Book {
    pub(crate) providers: Vec<Provider>,
    /// Provider names and aliases, lower case, to indices.
    by_name: HashMap<String, usize>,
    version: String,
    checked: Option<Date>,
    pub(crate) overrides: Option<Overrides>,
}

impl Book {
    /// Reads all files; on any mistake tells all of them. Later files override earlier ones of
    /// the same provider, name by name: a model name is looked up in the last file first.
    pub fn load(files: &[SourceFile]) -> Result<Book, Vec<Problem>> {
        Book::put_together(files, files.iter().map(ReadFile::new).collect())
    }

    /// The same of files that are read already: `parts` has one for each of `files`, in their order.
    pub fn put_together(files: &[SourceFile], parts: Vec<ReadFile>) -> Result<Book, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut read = Vec::new();
        for part in parts {
            problems.extend(part.problems);
            read.extend(part.file);
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
        let mut models = reckon::charged_names(provider, &call);
        models.extend(id);
        if let Some(asked) = overrides.stands_in(provider, &call, &names) {
            models.push(asked);
        }
        overrides.apply(&call, &names, &models, &mut priced);
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

    /// The dearest rates that may come to price a call of that model, whatever it uses, so that its
    /// worst case can be told before it is sent; `None` where no row is of the model. The call's
    /// usage is not looked at. An operator's own terms raise rates, and never lower them here.
    pub fn dearest(&self, call: &Call<'_>) -> Option<Dearest> {
        let own = lower(call.provider);
        let provider = self.provider(call.provider);
        let mut names: Vec<&str> = provider.map_or_else(Vec::new, Provider::names);
        names.push(&own);
        let meant = self.overrides.as_ref().and_then(|o| o.meant(call, &names));
        let list = match &meant {
            None => *call,
            Some(meant) => Call {
                model: meant.model,
                model_requested: meant.model_requested,
                context: &meant.context,
                ..*call
            },
        };
        let dearest = provider.and_then(|p| dearest::dearest(p, &list));
        match &self.overrides {
            None => dearest,
            Some(_) => self.raised(call, dearest),
        }
    }

    /// The same, where the operator's own terms are dearer.
    fn raised(&self, call: &Call<'_>, dearest: Option<Dearest>) -> Option<Dearest> {
        let mut raised = dearest;
        for bucket in Bucket::ALL {
            let usage = Usage::new().with(bucket, PER_MILLION);
            let net = self.price(&Call {
                usage: &usage,
                ..*call
            });
            if let Some(net) = net.net {
                raised.get_or_insert_default().raise(bucket, net);
            }
        }
        raised
    }

    /// The dearest rates that the provider, or where it is unknown anybody, charges at that instant.
    /// As with [`Book::ceiling`], a new model is then no way around a budget.
    pub fn dearest_of(&self, provider: Option<&str>, unix_ms: i64) -> Dearest {
        let own = provider.and_then(|name| self.provider(name));
        match own.filter(|p| p.prices_tokens()) {
            Some(own) => dearest::ceiling(std::slice::from_ref(own), unix_ms),
            None => dearest::ceiling(&self.providers, unix_ms),
        }
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

    /// What models are called: ids and names, in lower case and without snapshot dates, and patterns
    /// as they stand.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let of_model = |(_, model): (&str, &Model)| {
            let id = model.id.to_lowercase();
            names::undated(&model.matches).into_iter().chain([id])
        };
        let own = self.overrides.iter().flat_map(Overrides::names);
        self.models().flat_map(of_model).chain(own)
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
            what: format!("the name \"{alias}\" is also one of provider {other}; remove it here"),
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
mod tests;
