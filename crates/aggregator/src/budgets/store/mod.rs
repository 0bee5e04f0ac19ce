//! Where nodes agree on what each may spend: one trait, a store in memory and one in Redis.

mod memory;
pub mod redis;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use tollmesh_budget::lease::{Elsewhere, Reply, Report, Terms};

pub use memory::MemoryStore;
pub use redis::{Place, RedisStore};

/// One budget's key in one window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// The budget's name.
    pub budget: String,
    /// The values of its `per`; empty where it has none.
    pub key: Vec<String>,
    /// When the window began, milliseconds since 1970.
    pub window_start_ms: i64,
}

/// One cell's report, on its way to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The cell.
    pub cell: CellKey,
    /// What its budget demands.
    pub terms: Terms,
    /// The report.
    pub report: Report,
}

/// Cells of one budget that a node looks at, and has nothing to report of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The cells.
    pub cells: Vec<CellKey>,
}

/// Why the store has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or not in time.
    #[error("{store}: {what}")]
    Unavailable {
        /// The store, without its password.
        store: String,
        /// What happened.
        what: String,
    },
    /// It refuses who we say that we are.
    #[error("{store}: refuses the login: {what}; see redis.url and redis.password_file")]
    Refused {
        /// The store, without its password.
        store: String,
        /// Its own words.
        what: String,
    },
    /// It knows who we are, and does not let us do what we have to.
    #[error(
        "{store}: its access list forbids what budgets need: {what}; allow the user of redis.url \
         what `ACL SETUSER` in k8s/README.md says, on keys ~{keys}"
    )]
    Forbidden {
        /// The store, without its password.
        store: String,
        /// Its own words, which name the command or the key.
        what: String,
        /// The keys that it has to have.
        keys: String,
    },
    /// It holds what another version of Tollmesh wrote.
    #[error(
        "{store}: key {key:?} says format {found:?}, and this version speaks {expected:?}; \
         set another redis.prefix, or run one version only"
    )]
    OtherFormat {
        /// The store, without its password.
        store: String,
        /// The key that tells.
        key: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// Its answer is none of ours.
    #[error("{store}: unexpected answer: {what}")]
    Nonsense {
        /// The store, without its password.
        store: String,
        /// What came.
        what: String,
    },
}

/// A store's answer, when it comes.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where nodes agree. Made for one node, whose name goes with each report.
pub trait Store: fmt::Debug + Send + Sync {
    /// Answers each report, in their order. One that fails may have been taken all the same.
    fn sync<'a>(&'a self, asks: &'a [Ask]) -> Answer<'a, Vec<Result<Reply, StoreError>>>;

    /// Answers what the cells of each look have for all nodes but this one, in their order. Never asked
    /// of a store that nobody shares.
    fn look<'a>(&'a self, looks: &'a [Look])
    -> Answer<'a, Vec<Result<Vec<Elsewhere>, StoreError>>>;

    /// Makes these budgets known, so that their cells need not wait when they are first used, and
    /// looks whether the store is one of ours. To be called at the start, and when budgets change.
    fn register<'a>(&'a self, budgets: &'a [String]) -> Answer<'a, Result<(), StoreError>>;

    /// Whether nobody else in the cluster has claimed that within that time. What is ours stays ours:
    /// asking again, even after a restart, answers the same.
    fn claim<'a>(&'a self, what: &'a str, ttl_ms: u64) -> Answer<'a, Result<bool, StoreError>>;

    /// Whether other nodes may share it.
    fn is_shared(&self) -> bool {
        true
    }

    /// What nodes tell each other beside leases: one short text, the last that was put.
    fn notice(&self) -> Answer<'_, Result<Option<String>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Puts another text in its place.
    fn put_notice<'a>(&'a self, _text: &'a str) -> Answer<'a, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Gives up what a cell holds back after a loss of data: somebody has reckoned that nothing is
    /// missing.
    fn release_held_back<'a>(&'a self, cell: &'a CellKey) -> Answer<'a, Result<(), StoreError>>;
}
