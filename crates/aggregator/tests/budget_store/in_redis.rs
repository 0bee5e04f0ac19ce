//! A real Redis as a store of the model: its clock is set, its copies are keys beside its own.

use redis::Cmd;
use tokio::runtime::Runtime;
use tollmesh_aggregator::budgets::store::redis::Script;
use tollmesh_aggregator::budgets::store::{Ask, CellKey, Place, RedisStore};
use tollmesh_budget::lease::model::Backend;
use tollmesh_budget::lease::{Reply, Report, Terms};

const BUDGET: &str = "model";
const CELL: &str = "tm:v1:{model}:0:";
const PARTS: [&str; 3] = [CELL, "tm:v1:{model}:m", "tm:v1:{model}:0::x"];

/// A cell in a Redis.
pub struct InRedis {
    runtime: Runtime,
    store: RedisStore,
    cell: CellKey,
    n_copies: u64,
}

impl InRedis {
    /// A store there that works by that script.
    pub fn new(url: &str, script: Script) -> InRedis {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let place = Place::parse(url).unwrap();
        InRedis {
            runtime,
            store: RedisStore::new(place, "nobody".into()).with_script(script),
            cell: CellKey {
                budget: BUDGET.into(),
                key: Vec::new(),
                window_start_ms: 0,
            },
            n_copies: 0,
        }
    }

    fn ask(&self, cmd: &Cmd) {
        self.runtime.block_on(self.store.ask(cmd)).unwrap();
    }

    fn copy_all(&self, name: impl Fn(&str) -> (String, String)) {
        for part in PARTS {
            let (from, to) = name(part);
            self.ask(redis::cmd("DEL").arg(&to));
            self.ask(redis::cmd("COPY").arg(&from).arg(&to));
        }
    }
}

impl Backend for InRedis {
    type Copy = u64;

    fn sync(&mut self, now_ms: u64, instance: &str, report: &Report, terms: &Terms) -> Reply {
        self.store.set_clock(now_ms);
        let ask = Ask {
            cell: self.cell.clone(),
            terms: *terms,
            report: *report,
        };
        let reply = self.store.sync_as(instance, &ask);
        self.runtime.block_on(reply).unwrap()
    }

    fn empty(&mut self) {
        self.ask(redis::cmd("DEL").arg(&PARTS));
    }

    fn copy(&mut self) -> u64 {
        self.n_copies += 1;
        // More than the model keeps.
        let copy = self.n_copies % 8;
        self.copy_all(|part| (part.to_owned(), format!("{part}:{copy}")));
        copy
    }

    fn become_copy(&mut self, copy: &u64) {
        self.copy_all(|part| (format!("{part}:{copy}"), part.to_owned()));
    }
}
