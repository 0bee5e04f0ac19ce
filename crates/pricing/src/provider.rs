//! One provider's models, put together from all files that speak of it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tollmesh_usage::{Bucket, Unit};

use crate::book::Problem;
use crate::file::{Fee, Model, Modifier, PriceFile};
use crate::header::{Header, Tiers};
use crate::names::{self, Glob, Names, Pattern};
use crate::row::Row;

/// A provider, ready to price.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) name: String,
    aliases: Vec<String>,
    pub(crate) bills_requested: bool,
    pub(crate) tiers: Tiers,
    pub(crate) tier_facts: Vec<String>,
    /// Units that some model of the provider is charged for.
    pub(crate) charged_units: Vec<Unit>,
    prefixes: Vec<Glob>,
    suffixes: Vec<String>,
    routers: Vec<Glob>,
    unlisted_regions: Vec<Glob>,
    /// The last file first; inherited models come last.
    layers: Vec<Layer>,
    /// How many of the layers are not inherited.
    n_own: usize,
    found: Found,
}

/// Layer and entry of a model.
type Place = (usize, usize);

/// Names as calls carried them, with what they were found to mean: calls name few models, and
/// globs are slow to search.
#[derive(Debug, Default)]
struct Found(RwLock<HashMap<String, Option<Place>>>);

/// Names that are kept for a provider; beyond them, made-up ones presumably, each is looked up.
const NAMES_KEPT_MAX: usize = 1_024;

/// Longer names than any provider gives are not kept.
const NAME_KEPT_BYTES_MAX: usize = 256;

/// The models of one file.
#[derive(Debug, Default)]
struct Layer {
    names: Names,
    entries: Vec<Entry>,
}

/// A model with what applies to it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) model: Arc<Model>,
    pub(crate) modifiers: Vec<Arc<Modifier>>,
    pub(crate) fees: Vec<Arc<Fee>>,
}

/// The providers that have files of their own, each once.
pub(crate) fn names(files: &[PriceFile]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for file in files {
        if !names.contains(&file.header.provider) {
            names.push(file.header.provider.clone());
        }
    }
    names
}

/// Puts a provider together from its own files (earlier first) and those that it inherits from.
pub(crate) fn assemble(
    name: String,
    own: &[&PriceFile],
    all: &[PriceFile],
) -> (Provider, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut provider = Provider {
        name,
        aliases: own.iter().flat_map(|f| f.header.aliases.clone()).collect(),
        bills_requested: own.iter().any(|f| f.header.bills_requested),
        tiers: Tiers::default(),
        tier_facts: Vec::new(),
        charged_units: Vec::new(),
        prefixes: Vec::new(),
        suffixes: Vec::new(),
        routers: Vec::new(),
        unlisted_regions: Vec::new(),
        layers: Vec::new(),
        n_own: own.len(),
        found: Found::default(),
    };
    for file in own {
        provider.tiers.extend(&file.header.tiers);
        provider.tier_facts.extend(file.header.tier_facts.clone());
        provider.prefixes.extend(file.header.prefixes.clone());
        provider.suffixes.extend(file.header.suffixes.clone());
        provider.routers.extend(file.header.routers.clone());
        let unlisted = &file.header.unlisted_regions;
        provider.unlisted_regions.extend(unlisted.clone());
    }
    let parents = parents(own, all, &mut problems);
    let extras = Extras::of(own, &parents);
    for file in own.iter().rev() {
        let models = file.models.clone();
        let layer = layer(models, file, &extras, &mut problems);
        provider.layers.push(layer);
    }
    for (file, heir) in parents.iter().rev() {
        let models = file.models.iter().filter_map(|m| inherited(m, heir));
        let layer = layer(models.collect(), file, &extras, &mut Vec::new());
        provider.layers.push(layer);
    }
    provider.charged_units = charged_units(&provider, &extras);
    problems.extend(provider.check_extras(own));
    (provider, problems)
}

impl Provider {
    /// The model that the name means, whatever prefix stands before it.
    pub(crate) fn find(&self, name: &str) -> Option<&Entry> {
        let place = match self.found.get(name) {
            Some(place) => place,
            None => self.found.keep(name, self.look_up(name)),
        };
        self.entry(place?)
    }

    fn entry(&self, (layer, entry): Place) -> Option<&Entry> {
        self.layers.get(layer)?.entries.get(entry)
    }

    fn look_up(&self, name: &str) -> Option<Place> {
        let find = |name: &str| {
            let mut layers = self.layers.iter().enumerate();
            layers.find_map(|(n, layer)| Some((n, layer.names.find(name)?)))
        };
        find(name)
            .or_else(|| find(self.without_prefix(name)?))
            .or_else(|| find(self.without_suffix(&name.to_lowercase())?))
    }

    fn without_suffix<'n>(&self, name: &'n str) -> Option<&'n str> {
        let mut suffixes = self.suffixes.iter();
        suffixes.find_map(|suffix| name.strip_suffix(suffix.as_str()))
    }

    fn without_prefix<'n>(&self, name: &'n str) -> Option<&'n str> {
        let end = name.rfind('/')? + 1;
        let prefix = name.get(..end)?.to_lowercase();
        let is_known = self.prefixes.iter().any(|p| p.matches(&prefix));
        name.get(end..).filter(|_| is_known)
    }

    /// The id of the model that the name means. It takes no note of the name: those that calls carry
    /// have room there.
    pub(crate) fn id_of(&self, name: &str) -> Option<&str> {
        Some(&self.model_of(name)?.id)
    }

    fn model_of(&self, name: &str) -> Option<&Model> {
        let entry = self.entry(self.look_up(name)?)?;
        Some(entry.model.as_ref())
    }

    /// The names that mean the same model as this one does, in lower case and without what may stand
    /// around them. Where the name is a dated snapshot's, or one that only a pattern of the file has,
    /// that name alone.
    pub(crate) fn bare_names(&self, name: &str) -> Vec<String> {
        let model = self.model_of(name);
        model.map_or_else(Vec::new, |model| self.names_beside(model, name))
    }

    /// The same for an id that may be no name, yet what people know the model by.
    pub(crate) fn bare_names_of_id(&self, id: &str) -> Vec<String> {
        let model = self.model_of(id).or_else(|| self.with_id(id));
        model.map_or_else(Vec::new, |model| self.names_beside(model, id))
    }

    /// The model with that id, whether or not it is a name, in any case of letters.
    pub(crate) fn with_id(&self, id: &str) -> Option<&Model> {
        let mut models = self.all_models();
        models.find(|model| model.id.eq_ignore_ascii_case(id))
    }

    fn names_beside(&self, model: &Model, name: &str) -> Vec<String> {
        let own = names::undated(&model.matches);
        let bare = self.bare(name);
        let stem = names::without_date(&bare).map(str::to_owned);
        let is_snapshot = stem.is_some_and(|stem| own.contains(&stem));
        let is_own = bare == model.id.to_lowercase() || own.contains(&bare);
        match is_own && !is_snapshot {
            true => own,
            false => vec![bare],
        }
    }

    /// The name in lower case, without what may stand around it.
    pub(crate) fn bare(&self, name: &str) -> String {
        let lower = self.without_prefix(name).unwrap_or(name).to_lowercase();
        self.without_suffix(&lower).unwrap_or(&lower).to_owned()
    }

    /// A bare name with all that may stand around it, as patterns.
    pub(crate) fn spellings(&self, bare: &str) -> Vec<String> {
        let prefixes = self.prefixes.iter().map(Glob::to_string);
        let prefixes = [String::new()].into_iter().chain(prefixes);
        let suffixes = self.suffixes.iter().map(String::as_str);
        let suffixes: Vec<&str> = [""].into_iter().chain(suffixes).collect();
        let around = prefixes.flat_map(|prefix| {
            let ends = suffixes.iter();
            ends.map(|suffix| format!("{prefix}{bare}{suffix}"))
                .collect::<Vec<_>>()
        });
        around.collect()
    }

    /// Whether the name stands for a choice among models.
    pub(crate) fn routes(&self, name: &str) -> bool {
        !self.routers.is_empty() && fits(&self.routers, name)
    }

    /// Whether another price list than ours is for that region (lower case).
    pub(crate) fn lists_elsewhere(&self, region: &str) -> bool {
        self.unlisted_regions.iter().any(|r| r.matches(region))
    }

    /// The provider's name, and its aliases.
    pub(crate) fn names(&self) -> Vec<&str> {
        let aliases = self.aliases.iter().map(String::as_str);
        aliases.chain([self.name.as_str()]).collect()
    }

    /// The facts that its modifiers, fees and tiers ask for.
    pub(crate) fn facts(&self) -> impl Iterator<Item = &str> {
        let entries = self.layers.iter().flat_map(|l| &l.entries);
        let asked = entries.flat_map(|e| {
            let modifiers = e.modifiers.iter().flat_map(|m| m.when.facts());
            modifiers.chain(e.fees.iter().flat_map(|f| f.when.facts()))
        });
        asked.chain(self.tier_facts.iter().map(String::as_str))
    }

    /// Whether any row has a rate for tokens read and one for tokens produced.
    pub(crate) fn prices_tokens(&self) -> bool {
        let has = |bucket| {
            let mut rows = self.all_models().flat_map(|m| &m.rows);
            rows.any(|r| r.charge(bucket).is_some())
        };
        has(Bucket::Input) && has(Bucket::Output)
    }

    pub(crate) fn own_models(&self) -> impl Iterator<Item = &Model> {
        let own = self.layers.iter().take(self.n_own);
        own.flat_map(|l| l.entries.iter().map(|e| e.model.as_ref()))
    }

    /// Its own models and those that it inherits.
    pub(crate) fn all_models(&self) -> impl Iterator<Item = &Model> {
        let entries = self.layers.iter().flat_map(|l| &l.entries);
        entries.map(|e| e.model.as_ref())
    }

    /// Modifiers and fees that fit no model, and fees that would be charged twice.
    fn check_extras(&self, own: &[&PriceFile]) -> Vec<Problem> {
        let entries = || self.layers.iter().flat_map(|l| &l.entries);
        let mut problems = Vec::new();
        for file in own {
            let modifiers = file.modifiers.iter();
            let modifiers = modifiers.map(|m| (format!("modifier {}", m.id), &m.models));
            let fees = file.fees.iter();
            let fees = fees.map(|f| (format!("fee {}", f.id), &f.models));
            for (place, models) in modifiers.chain(fees) {
                let is_idle = |glob: &&Glob| {
                    !entries().any(|e| fits(std::slice::from_ref(*glob), &e.model.id))
                };
                let idle_ones = models.iter().filter(is_idle);
                problems.extend(idle_ones.map(|glob| idle(file, &place, glob)));
            }
        }
        if let Some(file) = own.last() {
            problems.extend(entries().filter_map(|e| charged_twice(file, e)));
        }
        problems
    }
}

impl Found {
    fn get(&self, name: &str) -> Option<Option<Place>> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.get(name).copied()
    }

    fn keep(&self, name: &str, place: Option<Place>) -> Option<Place> {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES_KEPT_MAX && name.len() <= NAME_KEPT_BYTES_MAX {
            names.insert(name.to_owned(), place);
        }
        place
    }
}

/// What applies beside the rows: the files' own modifiers, own and inherited fees. A later one of
/// the same id replaces an earlier one.
struct Extras {
    modifiers: Vec<Arc<Modifier>>,
    fees: Vec<Arc<Fee>>,
}

impl Extras {
    fn of(own: &[&PriceFile], parents: &[(&PriceFile, &Header)]) -> Extras {
        let mut extras = Extras {
            modifiers: Vec::new(),
            fees: Vec::new(),
        };
        for file in own {
            for modifier in &file.modifiers {
                extras.modifiers.retain(|m| m.id != modifier.id);
                extras.modifiers.push(modifier.clone());
            }
        }
        for file in parents.iter().map(|(f, _)| *f).chain(own.iter().copied()) {
            for fee in &file.fees {
                extras.fees.retain(|f| f.id != fee.id);
                extras.fees.push(fee.clone());
            }
        }
        extras
    }
}

fn parents<'f>(
    own: &[&'f PriceFile],
    all: &'f [PriceFile],
    problems: &mut Vec<Problem>,
) -> Vec<(&'f PriceFile, &'f Header)> {
    let mut parents = Vec::new();
    for file in own {
        for wanted in &file.header.inherits {
            let before = parents.len();
            let of = |p: &&PriceFile| p.header.provider == *wanted;
            parents.extend(all.iter().filter(of).map(|p| (p, &file.header)));
            let inherits_too = |(p, _): &(&PriceFile, _)| !p.header.inherits.is_empty();
            if parents.len() == before || parents.iter().any(inherits_too) {
                problems.push(Problem {
                    file: file.name.clone(),
                    place: "inherits".to_owned(),
                    what: format!(
                        "\"{wanted}\" is no provider with files of its own that inherit nothing"
                    ),
                });
            }
        }
    }
    parents
}

/// The model with rows of the tiers that the heir takes over; `None` where none is left, and for
/// models that it does not have.
fn inherited(model: &Arc<Model>, heir: &Header) -> Option<Arc<Model>> {
    if fits(&heir.not_inherited, &model.id) {
        return None;
    }
    let tiers = &heir.inherited_tiers;
    if tiers.is_empty() {
        return Some(model.clone());
    }
    let holds = |row: &&Row| tiers.contains(&row.tier);
    let rows: Vec<Row> = model.rows.iter().filter(holds).cloned().collect();
    if rows.is_empty() {
        return None;
    }
    let model = Model {
        rows,
        ..Model::clone(model)
    };
    Some(Arc::new(model))
}

fn layer(
    models: Vec<Arc<Model>>,
    file: &PriceFile,
    extras: &Extras,
    problems: &mut Vec<Problem>,
) -> Layer {
    let mut layer = Layer::default();
    for (index, model) in models.iter().enumerate() {
        for text in &model.matches {
            let claimed = layer.names.add(Pattern::new(text), index);
            if let Some(other) = claimed.and_then(|c| models.get(c)) {
                let what = match other.id == model.id {
                    true => "stands twice in this file; remove one".to_owned(),
                    false => format!(
                        "`match` \"{text}\" and model {} claim the same names; make one exact",
                        other.id
                    ),
                };
                problems.push(Problem {
                    file: file.name.clone(),
                    place: format!("model {}", model.id),
                    what,
                });
            }
        }
    }
    layer.entries = models.into_iter().map(|m| extras.entry(m)).collect();
    layer
}

impl Extras {
    fn entry(&self, model: Arc<Model>) -> Entry {
        let modifiers = self.modifiers.iter();
        let fees = self.fees.iter();
        Entry {
            modifiers: modifiers
                .filter(|m| fits(&m.models, &model.id))
                .cloned()
                .collect(),
            fees: fees
                .filter(|f| fits(&f.models, &model.id))
                .cloned()
                .collect(),
            model,
        }
    }
}

fn fits(models: &[Glob], id: &str) -> bool {
    let id = id.to_lowercase();
    models.iter().any(|glob| glob.matches(&id))
}

fn charged_units(provider: &Provider, extras: &Extras) -> Vec<Unit> {
    let entries = provider.layers.iter().flat_map(|l| &l.entries);
    let rows = entries.flat_map(|e| &e.model.rows);
    let by_rows = rows.flat_map(|r| r.units.iter().map(|(unit, _)| *unit));
    let mut units: Vec<Unit> = extras
        .fees
        .iter()
        .filter_map(|f| f.unit)
        .chain(by_rows)
        .collect();
    units.sort_unstable();
    units.dedup();
    units
}

fn idle(file: &PriceFile, place: &str, glob: &Glob) -> Problem {
    Problem {
        file: file.name.clone(),
        place: place.to_owned(),
        what: format!("`models`: \"{glob}\" fits the id of no model here; correct or remove it"),
    }
}

fn charged_twice(file: &PriceFile, entry: &Entry) -> Option<Problem> {
    let always = |f: &&Arc<Fee>| f.when.is_always() && f.unit.is_some();
    let fees: Vec<&Arc<Fee>> = entry.fees.iter().filter(always).collect();
    let again = (1..).zip(&fees).find(|(n, fee)| {
        let mut later = fees.iter().skip(*n);
        later.any(|o| o.unit == fee.unit && o.span.meets(fee.span))
    });
    let (_, fee) = again?;
    Some(Problem {
        file: file.name.clone(),
        place: format!("fee {}", fee.id),
        what: format!(
            "model {} is charged twice for one unit; part the fees by `models`, `when` or days",
            entry.model.id
        ),
    })
}
