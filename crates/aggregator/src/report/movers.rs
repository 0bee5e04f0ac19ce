//! Which groups of calls cost more or less than in the days before, and why.

mod words;

use std::collections::BTreeMap;

use tollmesh_pricing::Book;
use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

use super::causes::{self, Causes, Cell, Change, Changes};
use super::{Store, weights};
use crate::ledger::query::{Column, Dimension, Filter, Span, SpendQuery, SpendRow};

/// A group's day beside its days before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mover {
    /// The values that make the group, in the question's order; empty for all calls.
    pub key: Vec<Option<String>>,
    /// The sums of all days before.
    pub before: Cell,
    /// The sums of the day.
    pub after: Cell,
    /// Days that `before` sums over; 0 where there are none to compare with.
    pub n_days: u32,
    /// Calls of the day without a price, whose cost is not in the sums.
    pub unpriced: u64,
    /// Calls of the day whose counts are estimated.
    pub estimated: u64,
    /// The parts of the change.
    pub causes: Causes,
    /// The chief parts in words; empty where nothing changed.
    pub reason: String,
}

/// All calls, and the groups of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// All calls.
    pub total: Mover,
    /// The groups, the dearest first.
    pub groups: Vec<Mover>,
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// What makes groups.
    pub by: &'a [Dimension],
    /// Conditions on calls.
    pub filters: &'a [Filter],
    /// The days before, as far as they are looked at.
    pub before: &'a [Span],
    /// How many those are.
    pub n_days: u32,
    /// The day, as far as it is looked at.
    pub day: Span,
    /// Prices, to tell dear tokens from cheap ones.
    pub book: &'a Book,
}

/// What prices depend on within a group, beside the time.
const CELL: [Column; 3] = [Column::Provider, Column::Model, Column::ServiceTier];

type Key = Vec<Option<String>>;
type Models = BTreeMap<Key, (Cell, Cell)>;

/// What is known of a group before its change is split.
#[derive(Default)]
struct Group {
    models: Models,
    repeats: (u64, u64),
    unpriced: u64,
    estimated: u64,
}

impl Comparison<'_> {
    /// Asks for both spans and splits what changed.
    pub fn moved<S: Store>(&self, store: &S) -> Result<Moved, S::Error> {
        let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
        for before in self.before {
            for row in store.spend(&self.query(*before, &CELL))? {
                self.group(&mut groups, &row).0.add(&row);
            }
        }
        for row in store.spend(&self.query(self.day, &CELL))? {
            self.group(&mut groups, &row).1.add(&row);
            let group = groups.entry(self.key(&row)).or_default();
            group.unpriced += row.unpriced;
            group.estimated += row.estimated;
        }
        for before in self.before {
            for row in store.repeats(&self.query(*before, &[]))? {
                groups.entry(row.key).or_default().repeats.0 += row.requests;
            }
        }
        for row in store.repeats(&self.query(self.day, &[]))? {
            groups.entry(row.key).or_default().repeats.1 += row.requests;
        }
        let mut all = Group::default();
        groups.values().for_each(|group| all.take_in(group));
        let total = self.mover(Vec::new(), &all);
        let movers = groups.into_iter();
        let mut groups: Vec<Mover> = movers.map(|(key, group)| self.mover(key, &group)).collect();
        groups.sort_by(|a, b| {
            b.after
                .cost
                .cmp(&a.after.cost)
                .then_with(|| a.key.cmp(&b.key))
        });
        Ok(Moved { total, groups })
    }

    fn query(&self, span: Span, more: &[Column]) -> SpendQuery {
        let more = more.iter().map(|column| Dimension::Column(*column));
        SpendQuery {
            by: self.by.iter().cloned().chain(more).collect(),
            interval_ms: None,
            span,
            filters: self.filters.to_vec(),
        }
    }

    fn key(&self, row: &SpendRow) -> Key {
        row.key.iter().take(self.by.len()).cloned().collect()
    }

    fn group<'g>(
        &self,
        groups: &'g mut BTreeMap<Key, Group>,
        row: &SpendRow,
    ) -> &'g mut (Cell, Cell) {
        let cell = row.key.iter().skip(self.by.len()).cloned().collect();
        let group = groups.entry(self.key(row)).or_default();
        group.models.entry(cell).or_default()
    }

    fn mover(&self, key: Key, group: &Group) -> Mover {
        let models = group.models.iter();
        let changes = Changes {
            n_days: self.n_days,
            repeats: group.repeats,
            models: models
                .map(|(cell, sums)| self.change(cell, *sums))
                .collect(),
        };
        let (mut before, mut after) = (Cell::default(), Cell::default());
        for change in &changes.models {
            before.take_in(&change.before);
            after.take_in(&change.after);
        }
        let mut mover = Mover {
            key,
            before,
            after,
            n_days: self.n_days,
            unpriced: group.unpriced,
            estimated: group.estimated,
            causes: changes.causes(),
            reason: String::new(),
        };
        mover.reason = words::reason(&mover, &group.models, group.repeats);
        mover
    }

    fn change(&self, cell: &Key, (before, after): (Cell, Cell)) -> Change {
        let word = |i: usize| cell.get(i).and_then(Option::as_deref);
        let served = weights::Served {
            provider: word(0).unwrap_or_default(),
            model: word(1),
            tier: word(2),
        };
        // Within the days before: prices may change with the day.
        let end = self.before.last().and_then(|before| before.to);
        let end_ms = end.unwrap_or_default().as_unix_ms();
        let at = Timestamp::from_unix_ms(end_ms.saturating_sub(1));
        Change {
            before,
            after,
            weights: match before.requests {
                0 => Default::default(),
                _ => weights::of(self.book, served, at, &before),
            },
        }
    }
}

impl Group {
    fn take_in(&mut self, group: &Group) {
        for (cell, (before, after)) in &group.models {
            let sums = self.models.entry(cell.clone()).or_default();
            sums.0.take_in(before);
            sums.1.take_in(after);
        }
        self.repeats.0 += group.repeats.0;
        self.repeats.1 += group.repeats.1;
        self.unpriced += group.unpriced;
        self.estimated += group.estimated;
    }
}

impl Mover {
    /// What the day cost more, in pico-dollars; negative where it cost less.
    pub fn difference(&self) -> i128 {
        self.causes.after - self.causes.before
    }
}

impl Cell {
    /// Adds a group's sums.
    fn add(&mut self, row: &SpendRow) {
        self.take_in(&Cell {
            requests: row.requests,
            cost: row.cost.as_pico(),
            tokens: row.tokens,
        });
    }

    fn take_in(&mut self, more: &Cell) {
        self.requests += more.requests;
        self.cost += more.cost;
        for (sum, n) in self.tokens.iter_mut().zip(more.tokens) {
            *sum += n;
        }
    }

    /// Tokens sent, cached ones included.
    pub fn input(&self) -> u128 {
        self.sum(causes::is_input)
    }

    /// Tokens answered, reasoning included.
    pub fn output(&self) -> u128 {
        self.sum(|bucket| !causes::is_input(bucket))
    }

    /// Tokens read from a cache.
    pub fn cached(&self) -> u128 {
        self.sum(|bucket| matches!(bucket, Bucket::CacheRead | Bucket::CacheReadAudio))
    }

    fn sum(&self, is_meant: impl Fn(Bucket) -> bool) -> u128 {
        let each = Bucket::ALL.into_iter().zip(self.tokens);
        each.filter(|(bucket, _)| is_meant(*bucket))
            .map(|(_, n)| n)
            .sum()
    }
}
