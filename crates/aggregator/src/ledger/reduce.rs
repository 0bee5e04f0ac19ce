//! What the sums of a day do without once its calls are deleted, so that they stay few whatever
//! callers send.
//!
//! A tag that tells nearly every call apart (a session, a request) makes a sum of each call. Such a
//! tag's values become [`OTHER`]; every sum over other tags stays as it was, to the pico-dollar.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::ledger::rollup::Key;

/// Different values that a tag has in the sums of a day. Of a tag that has more, none is kept; of
/// one that labels or budgets name, those that came first. The same for models and for pods.
pub const SUM_VALUES_MAX: usize = 1_000;

/// Names of tags in the sums of a day; what tags of further names say is left out.
pub const SUM_TAGS_MAX: usize = 64;

/// Sums of one day by tags, workload and model, and as many by pod instead of workload, with tags and
/// without. At some 120 bytes each, with those of the month, they take 4.8 MB at most.
pub const SUM_LINES_MAX: usize = 10_000;

/// What stands for a value that is left out, as in metrics.
pub const OTHER: &str = "__other__";

/// Tags as a call had them.
pub type Tags = BTreeMap<String, String>;

/// What is counted of a day before it is judged.
#[derive(Debug)]
pub struct Census {
    tags: BTreeMap<String, Seen>,
    has_more_names: bool,
    models: BTreeSet<i64>,
    sources: BTreeSet<i64>,
}

/// What was seen of a tag.
#[derive(Debug, Default)]
struct Seen {
    is_named: bool,
    values: HashSet<String>,
    has_more: bool,
}

/// How the sums of a day are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduction {
    tags: BTreeMap<String, Fate>,
    /// Whether there are no other tags than these.
    is_of_all_names: bool,
    drops_tags: bool,
    /// Models above this number are one.
    last_model: i64,
    /// Sources above it stand without their pod and node, or else without all but namespace.
    last_source: i64,
    /// Steps that are yet to be taken should there still be too many sums.
    steps: Vec<Step>,
}

/// What becomes of a tag's values.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    KeptAre(HashSet<String>),
    Gone,
}

/// A way to fewer sums.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Tag(String),
    AllTags,
    Models,
    Sources,
}

/// Whether a fact of a sum stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// As it is.
    Whole,
    /// Its owner stands for it; of a model, all others.
    InPart,
}

impl Census {
    /// Of a day about which nothing is known; these tags are worth most.
    pub fn new(named: impl IntoIterator<Item = String>) -> Census {
        let mut tags = BTreeMap::new();
        for name in named {
            // What is named twice takes one place.
            if tags.len() >= SUM_TAGS_MAX {
                break;
            }
            tags.entry(name).or_insert_with(|| Seen {
                is_named: true,
                ..Seen::default()
            });
        }
        Census {
            tags,
            has_more_names: false,
            models: BTreeSet::new(),
            sources: BTreeSet::new(),
        }
    }

    /// Takes in tags of the day. Those of hours that were reduced before come first, so that a day
    /// is reduced alike from its first hour to its last.
    pub fn take_tags(&mut self, tags: &Tags, is_reduced: bool) {
        for (name, value) in tags {
            if is_reduced && name == OTHER {
                self.has_more_names = true;
                continue;
            }
            if !self.tags.contains_key(name) && self.tags.len() >= SUM_TAGS_MAX {
                self.has_more_names = true;
                continue;
            }
            let seen = self.tags.entry(name.clone()).or_default();
            if is_reduced && value == OTHER {
                seen.has_more = true;
            } else if !seen.values.contains(value) {
                match seen.values.len() < SUM_VALUES_MAX {
                    true => _ = seen.values.insert(value.clone()),
                    false => seen.has_more = true,
                }
            }
        }
    }

    /// Takes in a model and a source of the day.
    pub fn take_ids(&mut self, key: &Key) {
        for (ids, id) in [
            (&mut self.models, key.model),
            (&mut self.sources, key.source),
        ] {
            ids.insert(id);
            if ids.len() > SUM_VALUES_MAX {
                ids.pop_last();
            }
        }
    }

    /// What is to be left out for the sake of single tags, models and sources.
    pub fn judge(self) -> Reduction {
        let last = |ids: &BTreeSet<i64>| match ids.len() < SUM_VALUES_MAX {
            true => i64::MAX,
            false => ids.last().copied().unwrap_or(i64::MAX),
        };
        let mut by_size: Vec<(bool, std::cmp::Reverse<usize>, &String)> = self
            .tags
            .iter()
            .filter(|(_, seen)| !seen.has_more || seen.is_named)
            .map(|(name, seen)| (seen.is_named, std::cmp::Reverse(seen.values.len()), name))
            .collect();
        by_size.sort();
        let of_tags = by_size
            .into_iter()
            .map(|(.., name)| Step::Tag(name.clone()));
        let mut steps: Vec<Step> = of_tags
            .chain([Step::AllTags, Step::Models, Step::Sources])
            .collect();
        steps.reverse();
        Reduction {
            is_of_all_names: !self.has_more_names,
            drops_tags: false,
            last_model: last(&self.models),
            last_source: last(&self.sources),
            steps,
            tags: self
                .tags
                .into_iter()
                .map(|(name, seen)| (name, seen.fate()))
                .collect(),
        }
    }
}

impl Seen {
    fn fate(self) -> Fate {
        match (self.has_more, self.is_named) {
            (false, _) => Fate::Kept,
            (true, true) => Fate::KeptAre(self.values),
            (true, false) => Fate::Gone,
        }
    }
}

impl Reduction {
    /// Whether every sum stays as it is.
    pub fn is_nothing(&self) -> bool {
        self.is_of_all_names
            && !self.drops_tags
            && self.last_model == i64::MAX
            && self.last_source == i64::MAX
            && self.tags.values().all(|fate| *fate == Fate::Kept)
    }

    /// Leaves out more: the tag with the most values first, those that labels and budgets name
    /// after all others, models and sources last. False where nothing more can be left out.
    pub fn go_further(&mut self) -> bool {
        match self.steps.pop() {
            None => return false,
            Some(Step::Tag(name)) => _ = self.tags.insert(name, Fate::Gone),
            Some(Step::AllTags) => self.drops_tags = true,
            Some(Step::Models) => self.last_model = i64::MIN,
            Some(Step::Sources) => self.last_source = i64::MIN,
        }
        true
    }

    /// What is left of a call's tags.
    pub fn tags(&self, tags: &Tags) -> Tags {
        let one_other = || [(OTHER.to_owned(), OTHER.to_owned())].into();
        if self.drops_tags {
            return if tags.is_empty() {
                Tags::new()
            } else {
                one_other()
            };
        }
        let mut left = Tags::new();
        for (name, value) in tags {
            let value = match self.tags.get(name) {
                Some(Fate::Kept) => value,
                Some(Fate::KeptAre(values)) if values.contains(value) => value,
                Some(_) => OTHER,
                None => {
                    left.append(&mut one_other());
                    continue;
                }
            };
            left.insert(name.clone(), value.to_owned());
        }
        left
    }

    /// Whether a model stays.
    pub fn model(&self, id: i64) -> Stays {
        stays(id, self.last_model)
    }

    /// Whether a source stays.
    pub fn source(&self, id: i64) -> Stays {
        stays(id, self.last_source)
    }

    /// Whether even owners of sources are too many.
    pub fn drops_owners(&self) -> bool {
        self.last_source == i64::MIN
    }

    /// Sums no pod by itself any more.
    pub fn drop_pods(&mut self) {
        // Numbers begin at 1.
        self.last_source = self.last_source.min(0);
    }

    /// What a sum of such tags under that key is told apart by, as a hash; `owner` is the source's.
    pub fn print_of(&self, tags: &Tags, key: &Key, owner: i64) -> u64 {
        let part = |id: i64, stays: Stays| (stays == Stays::Whole).then_some(id);
        let owner = match self.drops_owners() {
            true => 0,
            false => owner,
        };
        let mut hasher = DefaultHasher::new();
        let model = part(key.model, self.model(key.model));
        let rest = (key.outcome, key.usage_source, key.cost_status);
        (self.tags(tags), owner, model, rest).hash(&mut hasher);
        hasher.finish()
    }

    /// The same of a sum by tags and pod.
    pub fn print_by_pod(&self, tags: &Tags, key: &Key, owner: i64) -> u64 {
        let source = match self.source(key.source) {
            Stays::Whole => key.source,
            Stays::InPart => owner,
        };
        let mut hasher = DefaultHasher::new();
        let model = (self.model(key.model) == Stays::Whole).then_some(key.model);
        let rest = (key.outcome, key.usage_source, key.cost_status);
        (self.tags(tags), source, model, rest).hash(&mut hasher);
        hasher.finish()
    }
}

fn stays(id: i64, last: i64) -> Stays {
    match id <= last {
        true => Stays::Whole,
        false => Stays::InPart,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_twice_takes_one_place() {
        let twice = (0..2 * SUM_TAGS_MAX).map(|n| ["team", "user"][n % 2]);
        let named = twice.chain(["project"]).map(str::to_owned);
        let census = Census::new(named);
        assert_eq!(
            census.tags.keys().collect::<Vec<_>>(),
            ["project", "team", "user"]
        );
        assert!(census.tags.values().all(|seen| seen.is_named));
        let many = Census::new((0..2 * SUM_TAGS_MAX).map(|n| n.to_string()));
        assert_eq!(many.tags.len(), SUM_TAGS_MAX);
    }
}
