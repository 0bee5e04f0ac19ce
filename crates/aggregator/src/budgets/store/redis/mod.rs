//! A store in Redis or Valkey, a server alone or a cluster, which all nodes of a mesh share.

mod keys;
mod place;
mod script;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, FromRedisValue, ServerErrorKind, Value};
use tokio::sync::Mutex;
use tollmesh_budget::lease::{Elsewhere, Reply};

use super::{Answer, Ask, CellKey, Look, Store, StoreError};
use keys::Keys;
use place::Link;
pub use place::{PREFIX_DEFAULT, Place};
pub use script::Script;

/// How long a marker outlives its budget's last start of a node, milliseconds: 400 days.
const MARKER_TTL_MS: u64 = 400 * 86_400_000;

/// The store of one node.
pub struct RedisStore {
    place: Place,
    instance: String,
    script: Script,
    looking: Script,
    /// What the script takes for now; 0 for the server's clock.
    now_ms: AtomicU64,
    link: Mutex<Option<Link>>,
}

impl RedisStore {
    /// A store there, for the node of that name. Connects when it is first asked.
    pub fn new(place: Place, instance: String) -> RedisStore {
        RedisStore {
            place,
            instance,
            script: Script::shipped(),
            looking: Script::looking(),
            now_ms: AtomicU64::new(0),
            link: Mutex::default(),
        }
    }

    /// The same with another script and a clock that is set: for those who try it.
    pub fn with_script(mut self, script: Script) -> RedisStore {
        self.script = script;
        self
    }

    /// Sets the clock by which reports are taken; 0 is the server's.
    pub fn set_clock(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Any command, as the node would send it.
    pub async fn ask(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        let mut link = self.link().await?;
        self.send(&mut link, cmd).await
    }

    /// Takes the report of any node.
    pub async fn sync_as(&self, instance: &str, ask: &Ask) -> Result<Reply, StoreError> {
        let mut link = self.link().await?;
        let keys = Keys::of(self.place.key_prefix(), &ask.cell);
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let (by_name, by_text) = self.script.calls(&keys, instance, ask, now_ms);
        let answer = match link.ask(&by_name).await {
            Err(error) if script::is_forgotten(&error) => self.send(&mut link, &by_text).await?,
            Err(error) => return Err(self.give_up(&error).await),
            Ok(answer) => answer,
        };
        let numbers = Vec::<u64>::from_redis_value(answer.clone()).ok();
        let reply = numbers.as_deref().and_then(script::reply_in);
        reply.ok_or_else(|| StoreError::Nonsense {
            store: self.place.to_string(),
            what: format!("{answer:?}"),
        })
    }

    /// Looks at cells in the name of any node.
    pub async fn look_as(&self, instance: &str, look: &Look) -> Result<Vec<Elsewhere>, StoreError> {
        let mut link = self.link().await?;
        let cells = look.cells.iter();
        let cells = cells.map(|cell| Keys::of(self.place.key_prefix(), cell).cell);
        let cells: Vec<String> = cells.collect();
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let (by_name, by_text) = self.looking.looks(&cells, instance, now_ms);
        let answer = match link.ask(&by_name).await {
            Err(error) if script::is_forgotten(&error) => self.send(&mut link, &by_text).await?,
            Err(error) => return Err(self.give_up(&error).await),
            Ok(answer) => answer,
        };
        let numbers = Vec::<u64>::from_redis_value(answer.clone()).ok();
        let found = numbers.and_then(|numbers| script::elsewhere_in(&numbers, cells.len()));
        found.ok_or_else(|| StoreError::Nonsense {
            store: self.place.to_string(),
            what: format!("{answer:?}"),
        })
    }

    async fn send(&self, link: &mut Link, cmd: &Cmd) -> Result<Value, StoreError> {
        match link.ask(cmd).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.give_up(&error).await),
        }
    }

    /// A connection that failed is not used again: passwords may have changed, servers moved. Nor is
    /// one to a server that has become a replica: its name may lead to the new master by now.
    async fn give_up(&self, error: &redis::RedisError) -> StoreError {
        let is_replica = matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        );
        let is_broken = error.is_io_error() || error.is_connection_dropped();
        if is_replica || is_broken || error.is_unrecoverable_error() {
            *self.link.lock().await = None;
        }
        self.place.failed(error)
    }

    /// An answer that is none of ours.
    fn nonsense(&self, error: &dyn std::error::Error) -> StoreError {
        StoreError::Nonsense {
            store: self.place.to_string(),
            what: error.to_string(),
        }
    }

    /// The connection, made if there is none; whoever comes meanwhile waits for the same.
    async fn link(&self) -> Result<Link, StoreError> {
        let mut kept = self.link.lock().await;
        if let Some(link) = &*kept {
            return Ok(link.clone());
        }
        let mut link = self.place.connect().await?;
        self.check_format(&mut link).await?;
        if let Link::Server(_) = link {
            for script in [&self.script, &self.looking] {
                let loaded = link.ask(&script.load()).await;
                loaded.map_err(|error| self.place.failed(&error))?;
            }
        }
        *kept = Some(link.clone());
        Ok(link)
    }

    /// Refuses a store that another version of us wrote to, and marks one that is new.
    async fn check_format(&self, link: &mut Link) -> Result<(), StoreError> {
        let key = keys::format(self.place.key_prefix());
        let mut cmd = redis::cmd("SET");
        cmd.arg(&key).arg(keys::FORMAT).arg("NX").arg("GET");
        let failed = |error| self.place.failed(&error);
        let found = link.ask(&cmd).await.map_err(failed)?;
        let found = Option::<String>::from_redis_value(found);
        match found {
            Ok(None) => Ok(()),
            Ok(Some(found)) if found == keys::FORMAT => Ok(()),
            Ok(Some(found)) => Err(StoreError::OtherFormat {
                store: self.place.to_string(),
                key,
                found,
                expected: keys::FORMAT.to_owned(),
            }),
            Err(error) => Err(StoreError::Nonsense {
                store: self.place.to_string(),
                what: error.to_string(),
            }),
        }
    }

    async fn register_all(&self, budgets: &[String]) -> Result<(), StoreError> {
        let mut link = self.link().await?;
        for budget in budgets {
            let mut cmd = redis::cmd("EVAL");
            cmd.arg(include_str!("register.lua")).arg(1);
            cmd.arg(keys::marker(self.place.key_prefix(), budget));
            cmd.arg(self.now_ms.load(Ordering::Relaxed))
                .arg(MARKER_TTL_MS);
            self.send(&mut link, &cmd).await?;
        }
        Ok(())
    }
}

impl Store for RedisStore {
    fn sync<'a>(&'a self, asks: &'a [Ask]) -> Answer<'a, Vec<Result<Reply, StoreError>>> {
        // All are written before the first answer is awaited: one connection takes them as one batch.
        let replies = asks.iter().map(|ask| self.sync_as(&self.instance, ask));
        Box::pin(join_all(replies))
    }

    fn look<'a>(
        &'a self,
        looks: &'a [Look],
    ) -> Answer<'a, Vec<Result<Vec<Elsewhere>, StoreError>>> {
        let found = looks.iter().map(|look| self.look_as(&self.instance, look));
        Box::pin(join_all(found))
    }

    fn register<'a>(&'a self, budgets: &'a [String]) -> Answer<'a, Result<(), StoreError>> {
        Box::pin(self.register_all(budgets))
    }

    fn claim<'a>(&'a self, what: &'a str, ttl_ms: u64) -> Answer<'a, Result<bool, StoreError>> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(keys::claim(self.place.key_prefix(), what));
        // With NX and GET it answers who had it before; nobody, where it is new.
        cmd.arg(&self.instance).arg("NX").arg("GET");
        cmd.arg("PX").arg(ttl_ms);
        Box::pin(async move {
            let holder = Option::<String>::from_redis_value(self.ask(&cmd).await?);
            let holder = holder.map_err(|error| self.nonsense(&error))?;
            Ok(holder.is_none_or(|holder| holder == self.instance))
        })
    }

    fn notice(&self) -> Answer<'_, Result<Option<String>, StoreError>> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(keys::notice(self.place.key_prefix()));
        Box::pin(async move {
            let text = Option::<String>::from_redis_value(self.ask(&cmd).await?);
            text.map_err(|error| self.nonsense(&error))
        })
    }

    fn put_notice<'a>(&'a self, text: &'a str) -> Answer<'a, Result<(), StoreError>> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(keys::notice(self.place.key_prefix())).arg(text);
        Box::pin(async move { self.ask(&cmd).await.map(drop) })
    }

    fn release_held_back<'a>(&'a self, cell: &'a CellKey) -> Answer<'a, Result<(), StoreError>> {
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(Keys::of(self.place.key_prefix(), cell).cell)
            .arg("l");
        Box::pin(async move { self.ask(&cmd).await.map(drop) })
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisStore({})", self.place)
    }
}
