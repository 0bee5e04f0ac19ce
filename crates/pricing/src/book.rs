//! All price tables, checked and ready.

use std::collections::HashMap;

use jiff::civil::Date;
use sha2::{Digest, Sha256};

use crate::cost::{Call, Priced};
use crate::file::{self, Model, PriceFile};
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
        reckon::price(self.provider(call.provider), call).unwrap_or_else(Priced::unpriced)
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
