//! How many reports a second one Redis takes from ten thousand sidecars, and how long they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollmesh_aggregator::budgets::store::{Ask, CellKey, Place, RedisStore};
use tollmesh_budget::lease::{Holder, Terms};

/// Budgets that all of them share: two of these concern each sidecar.
const BUDGETS: usize = 20;
/// How long is measured.
const SECONDS: u64 = 15;
/// How often each sidecar reports both its cells.
const BEAT: Duration = Duration::from_secs(5);
/// Connections; a sidecar has one of its own, but their number is what this machine bears.
const CONNECTIONS: usize = 200;

/// Reports that had no answer in time.
static N_UNANSWERED: AtomicU64 = AtomicU64::new(0);

/// Measures the load that so many sidecars make, then what the server takes at most.
pub fn measure(n_sidecars: usize, url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let place = Place::parse(url).unwrap();
    let stores: Vec<Arc<RedisStore>> = (0..CONNECTIONS)
        .map(|n| Arc::new(RedisStore::new(place.clone(), format!("connection-{n}"))))
        .collect();
    runtime.block_on(async {
        let n = (n_sidecars * 2) as u64 / BEAT.as_secs();
        println!(
            "{n_sidecars} sidecars with 2 budgets each, a report of each in {BEAT:?}: {n}/s asked"
        );
        paced(n_sidecars, &stores).await;
        let before = cpu_seconds(&stores[0]).await;
        let n = flat_out(n_sidecars, &stores).await;
        let spent = cpu_seconds(&stores[0]).await - before;
        println!(
            "the server's processor time: {:.1} µs a report",
            spent * 1e6 / n as f64
        );
    });
}

/// Each sidecar reports at its own time, whether or not the last answers came late.
async fn paced(n_sidecars: usize, stores: &[Arc<RedisStore>]) {
    let begun = Instant::now() + Duration::from_millis(500);
    let sidecars = (0..n_sidecars).map(|n| {
        let store = stores[n % stores.len()].clone();
        let first = begun + BEAT.mul_f64(n as f64 / n_sidecars as f64);
        tokio::spawn(async move {
            let mut sidecar = Sidecar::new(n);
            let mut waits = Vec::new();
            for beat in 0..u32::try_from(SECONDS / BEAT.as_secs()).unwrap() {
                let due = first + BEAT * beat;
                tokio::time::sleep_until(due.into()).await;
                for cell in 0..2 {
                    let sent = if cell == 0 { due } else { Instant::now() };
                    sidecar.report(cell, &store).await;
                    waits.push(sent.elapsed());
                }
            }
            waits
        })
    });
    let tasks: Vec<_> = sidecars.collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    tell("paced", waits, begun.elapsed());
}

/// Each connection has one sidecar's report under way at any time.
async fn flat_out(n_sidecars: usize, stores: &[Arc<RedisStore>]) -> usize {
    let begun = Instant::now();
    let tasks: Vec<_> = stores
        .iter()
        .enumerate()
        .map(|(n, store)| {
            let store = store.clone();
            let step = stores.len();
            tokio::spawn(async move {
                let mut waits = Vec::new();
                for sidecar in (n..).step_by(step) {
                    if begun.elapsed() > Duration::from_secs(SECONDS / 3) {
                        break;
                    }
                    let sent = Instant::now();
                    let mut sidecar = Sidecar::new(sidecar % n_sidecars);
                    sidecar.seq = (1 << 40) + begun.elapsed().as_nanos() as u64;
                    sidecar.report(0, &store).await;
                    waits.push(sent.elapsed());
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    let n = waits.len();
    tell("flat out", waits, begun.elapsed());
    n
}

/// What the server's process has used, from `used_cpu_user:1.5` and `used_cpu_sys:0.5`.
async fn cpu_seconds(store: &RedisStore) -> f64 {
    let answer = store.ask(redis::cmd("INFO").arg("cpu")).await.unwrap();
    let text: String = redis::from_redis_value(answer).unwrap();
    let of = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value
            .and_then(|value| value.trim().parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    of("used_cpu_user:") + of("used_cpu_sys:")
}

fn tell(what: &str, mut waits: Vec<Duration>, took: Duration) {
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() * percent / 100).min(waits.len() - 1)];
    let rate = waits.len() as f64 / took.as_secs_f64();
    println!(
        "{what:<9} {rate:>8.0} operations/s   p50 {:?}   p99 {:?}   worst {:?}   unanswered {}",
        at(50),
        at(99),
        at(100),
        N_UNANSWERED.swap(0, Ordering::Relaxed)
    );
}

struct Sidecar {
    name: String,
    seq: u64,
    cells: [(CellKey, Holder); 2],
}

impl Sidecar {
    fn new(number: usize) -> Sidecar {
        let cell = |n: usize| CellKey {
            budget: format!("budget-{}", n % BUDGETS),
            key: Vec::new(),
            window_start_ms: 1_800_000_000_000,
        };
        Sidecar {
            name: format!("00000000-0000-0000-0000-{number:012}"),
            seq: 0,
            cells: [cell(number), cell(number * 7 + 1)].map(|cell| (cell, Holder::default())),
        }
    }

    async fn report(&mut self, cell: usize, store: &RedisStore) {
        self.seq += 1;
        let (key, holder) = &mut self.cells[cell];
        holder.settle(None, 3);
        let ask = Ask {
            cell: key.clone(),
            terms: Terms::new(10_000_000_000, 4_102_444_800_000),
            report: holder.report(0, self.seq, 1_000),
        };
        // Without an answer it reports again with the next beat, as a sidecar does.
        let Ok(reply) = store.sync_as(&self.name, &ask).await else {
            N_UNANSWERED.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let Some(granted) = holder.take(&reply, 0) {
            holder.persisted(granted);
        }
    }
}
