//! What calls cost by what became of them.

use std::collections::{HashMap, HashSet};

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use crate::ledger::error::QueryError;
use crate::ledger::outcomes;
use crate::ledger::query::filter::{Column, Dimension, Filter, Span};
use crate::ledger::query::hours::Hours;
use crate::ledger::query::looked::{Looked, Patience};
use crate::ledger::query::reader::Reader;
use crate::ledger::query::scope::{Scope, Table, word};
use crate::ledger::query::spend::{self, GROUPS_MAX, SpendQuery, SpendRow};
use crate::ledger::query::terms::Terms;
use crate::money::PicoSum;

/// Which calls.
#[derive(Clone, Debug, Default)]
pub struct OutcomesQuery {
    /// One group for each combination of these.
    pub by: Vec<Dimension>,
    /// The time looked at.
    pub span: Span,
    /// Conditions, all of which must hold; relayed calls as in a spend query.
    pub filters: Vec<Filter>,
}

/// The calls of a group of which the same became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeRow {
    /// The values of [`OutcomesQuery::by`], in its order.
    pub key: Vec<Option<String>>,
    /// The word for what became of them; `None` for calls of which nobody told.
    pub label: Option<String>,
    /// Subjects with that label: calls, requests and traces, each once.
    pub outcomes: u64,
    /// Their calls.
    pub requests: u64,
    /// The cost of those that are priced.
    pub cost: PicoSum,
    /// The cost of all calls of the group, whatever became of them.
    pub spend: PicoSum,
}

impl Reader {
    /// The cost of each label in each group; the groups in order of their spend, the highest first.
    pub fn outcomes(&self, query: &OutcomesQuery) -> Result<Vec<OutcomeRow>, QueryError> {
        Ok(self.outcomes_within(query, Patience::ENDLESS)?.answer)
    }

    /// The same, of the calls of those hours that could be looked at in time.
    pub fn outcomes_within(
        &self,
        query: &OutcomesQuery,
        patience: Patience,
    ) -> Result<Looked<Vec<OutcomeRow>>, QueryError> {
        let looked = self.ask(|connection| sums(connection, query, patience))?;
        Ok(Looked {
            answer: in_order(looked.answer),
            ..looked
        })
    }
}

fn in_order(mut rows: Vec<OutcomeRow>) -> Vec<OutcomeRow> {
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    for group in rows.chunk_by_mut(|a, b| a.key == b.key) {
        let spend = group.iter().map(|row| row.cost.as_pico()).sum();
        for row in group {
            row.spend = PicoSum::from_pico(spend);
        }
    }
    rows.sort_by(|a, b| {
        let by_spend = b.spend.cmp(&a.spend).then_with(|| a.key.cmp(&b.key));
        let told_first = a.label.is_none().cmp(&b.label.is_none());
        by_spend
            .then(told_first)
            .then(b.cost.cmp(&a.cost))
            .then_with(|| a.label.cmp(&b.label))
    });
    rows
}

/// Rows tell the calls that something was told of; of all others, sums know what is left.
fn sums(
    connection: &Connection,
    query: &OutcomesQuery,
    patience: Patience,
) -> Result<Looked<Vec<OutcomeRow>>, QueryError> {
    let mut told = Told::default();
    let mut hours = Hours::of(connection, query.span)?;
    let mut looked = Looked::wholly(query.span);
    if let Some(is_told) = outcomes::is_told(connection, "t")? {
        let terms = Terms::of_parts(connection, &query.filters)?;
        while let Some((_, span)) = hours.next(connection, patience)? {
            let mut scope = Scope::of_terms(Table::Events, span, &terms);
            scope.add_condition(is_told.as_str(), []);
            told.look(connection, query, scope)?;
        }
        looked = Looked {
            answer: hours.looked_span(),
            at: hours.looked_at(),
        };
    }
    let all = SpendQuery {
        by: query.by.clone(),
        interval_ms: None,
        span: looked.answer,
        filters: query.filters.clone(),
    };
    let all = spend::answer(connection, &all, Patience::ENDLESS)?.answer;
    Ok(Looked {
        answer: told.with_the_others(all),
        at: looked.at,
    })
}

/// The calls of a group with the same label.
#[derive(Default)]
struct Labelled {
    subjects: HashSet<String>,
    requests: u64,
    cost: PicoSum,
}

/// The calls that something was told of.
#[derive(Default)]
struct Told {
    groups: HashMap<Vec<Option<String>>, HashMap<String, Labelled>>,
    n_groups: usize,
}

impl Told {
    /// Takes in the rows of a scope.
    fn look(
        &mut self,
        connection: &Connection,
        query: &OutcomesQuery,
        scope: Scope,
    ) -> Result<(), QueryError> {
        let mut scope = scope.without_relayed(&query.filters);
        let label = Dimension::Column(Column::OutcomeLabel);
        let dimensions = query.by.iter().chain([&label]);
        let columns: Vec<String> = dimensions.map(|by| scope.expression(by)).collect();
        let sql = format!(
            "SELECT t.cost_pico, {}, {} {}",
            outcomes::subject_of("t"),
            columns.join(", "),
            scope.sql(),
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(scope.into_values()))?;
        while let Some(row) = rows.next()? {
            self.take(query, row)?;
        }
        Ok(())
    }

    fn take(&mut self, query: &OutcomesQuery, row: &Row<'_>) -> Result<(), QueryError> {
        let cost: Option<i64> = row.get(0)?;
        let key = (2..).zip(&query.by).map(|(at, dimension)| {
            let value: Value = row.get(at)?;
            Ok(word(dimension, value))
        });
        let key = key.collect::<rusqlite::Result<_>>()?;
        let label: String = row.get(2 + query.by.len())?;
        let labels = self.groups.entry(key).or_default();
        if !labels.contains_key(&label) {
            self.n_groups += 1;
            if self.n_groups > GROUPS_MAX {
                return Err(QueryError::TooManyGroups { max: GROUPS_MAX });
            }
        }
        let labelled = labels.entry(label).or_default();
        labelled.subjects.insert(row.get(1)?);
        labelled.requests += 1;
        labelled.cost += PicoSum::from_pico(cost.unwrap_or(0).into());
        Ok(())
    }

    /// A row for each label, and one for the calls of each group that have none.
    fn with_the_others(self, all: Vec<SpendRow>) -> Vec<OutcomeRow> {
        let mut others: HashMap<_, (u64, i128)> = all
            .into_iter()
            .map(|group| (group.key, (group.requests, group.cost.as_pico())))
            .collect();
        let mut rows = Vec::new();
        for (key, labels) in self.groups {
            for (label, labelled) in labels {
                if let Some((requests, pico)) = others.get_mut(&key) {
                    *requests = requests.saturating_sub(labelled.requests);
                    *pico -= labelled.cost.as_pico();
                }
                rows.push(OutcomeRow {
                    key: key.clone(),
                    label: Some(label),
                    outcomes: labelled.subjects.len() as u64,
                    requests: labelled.requests,
                    cost: labelled.cost,
                    spend: PicoSum::ZERO,
                });
            }
        }
        let others = others
            .into_iter()
            .filter(|(_, (requests, _))| *requests > 0);
        rows.extend(others.map(|(key, (requests, pico))| OutcomeRow {
            key,
            label: None,
            outcomes: 0,
            requests,
            cost: PicoSum::from_pico(pico),
            spend: PicoSum::ZERO,
        }));
        rows
    }
}
