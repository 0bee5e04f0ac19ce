//! A store for one node, in its own memory: what is lost with the process is in its ledger.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tollmesh_budget::lease::{Cell, Elsewhere, Marker, Reply, Report};

use super::{Answer, Ask, CellKey, Look, Store, StoreError};
use crate::clock;

/// A store for one node.
#[derive(Debug)]
pub struct MemoryStore {
    instance: String,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    cells: BTreeMap<CellKey, (Cell, u64)>,
}

impl MemoryStore {
    /// An empty store for the node of that name.
    pub fn new(instance: String) -> MemoryStore {
        MemoryStore {
            instance,
            shelf: Mutex::default(),
        }
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        // What is on it is whole after each statement, whoever panicked.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn sync<'a>(&'a self, asks: &'a [Ask]) -> Answer<'a, Vec<Result<Reply, StoreError>>> {
        let now_ms = clock::now().as_unix_ms().max(0).unsigned_abs();
        let mut shelf = self.shelf();
        shelf
            .cells
            .retain(|_, (_, expire_at_ms)| *expire_at_ms > now_ms);
        let replies = asks
            .iter()
            .map(|ask| Ok(shelf.sync(now_ms, &self.instance, ask)));
        let replies = replies.collect();
        Box::pin(std::future::ready(replies))
    }

    fn look<'a>(
        &'a self,
        looks: &'a [Look],
    ) -> Answer<'a, Vec<Result<Vec<Elsewhere>, StoreError>>> {
        let now_ms = clock::now().as_unix_ms().max(0).unsigned_abs();
        let shelf = self.shelf();
        let elsewhere = |cell: &CellKey| {
            let cell = shelf.cells.get(cell);
            let found = cell.map(|(cell, _)| cell.elsewhere(now_ms, &self.instance));
            found.unwrap_or_default()
        };
        let found = looks.iter();
        let found = found.map(|look| Ok(look.cells.iter().map(elsewhere).collect()));
        let found: Vec<_> = found.collect();
        Box::pin(std::future::ready(found))
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn register<'a>(&'a self, _budgets: &'a [String]) -> Answer<'a, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn claim<'a>(&'a self, _what: &'a str, _ttl_ms: u64) -> Answer<'a, Result<bool, StoreError>> {
        // Nobody else is here to claim anything.
        Box::pin(std::future::ready(Ok(true)))
    }

    fn release_held_back<'a>(&'a self, cell: &'a CellKey) -> Answer<'a, Result<(), StoreError>> {
        if let Some((cell, _)) = self.shelf().cells.get_mut(cell) {
            cell.release_held_back();
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Shelf {
    fn sync(&mut self, now_ms: u64, instance: &str, ask: &Ask) -> Reply {
        // Nobody else is granted anything here, so there is nobody to wait for, and an earlier life
        // of the process is no loss: what the holder carries over is all that there was.
        let report = Report {
            epoch: 0,
            version: 0,
            life: 0,
            ..ask.report
        };
        let (cell, expire_at_ms) = self.cells.entry(ask.cell.clone()).or_default();
        *expire_at_ms = ask.terms.expire_at_ms;
        let mut marker = Marker::OLD;
        cell.sync(&mut marker, now_ms, instance, &report, &ask.terms)
    }
}
