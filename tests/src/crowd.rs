//! Many clients at once that do not take no for an answer: they ask again after each refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::client::{Client, Ended};
use crate::exchange::Exchange;
use crate::mesh::Mesh;

/// How long a client takes before it asks again: two hundred of them ask 800 times a second.
const PAUSE: Duration = Duration::from_millis(250);

/// Clients at work.
#[derive(Debug)]
pub struct Crowd {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

/// What they have seen.
#[derive(Debug, Default)]
struct Tally {
    is_over: AtomicBool,
    n_served: AtomicU64,
    n_refused: AtomicU64,
    n_failed: AtomicU64,
}

impl Crowd {
    /// Sends that many clients of a team to these meshes, in turn; each asks one call after the other.
    pub fn gather(meshes: &[&Mesh], team: &str, n_clients: usize, exchange: &Exchange) -> Crowd {
        let tally = Arc::new(Tally::default());
        let meshes = meshes.iter().cycle().take(n_clients);
        let clients = meshes.map(|mesh| {
            let life = live(mesh.client(team), exchange.clone(), Arc::clone(&tally));
            mesh.runtime().spawn(life)
        });
        Crowd {
            clients: clients.collect(),
            tally,
        }
    }

    /// Calls that were answered by the provider.
    pub fn n_served(&self) -> u64 {
        self.tally.n_served.load(Ordering::Relaxed)
    }

    /// Calls that were refused.
    pub fn n_refused(&self) -> u64 {
        self.tally.n_refused.load(Ordering::Relaxed)
    }

    /// Calls that ended in any other way.
    pub fn n_failed(&self) -> u64 {
        self.tally.n_failed.load(Ordering::Relaxed)
    }

    /// Sends them home, after the calls at hand.
    pub fn disperse(mut self, mesh: &Mesh) -> (u64, u64, u64) {
        self.tally.is_over.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            // A client that panicked has failed already.
            let _ = mesh.runtime().block_on(client);
        }
        (self.n_served(), self.n_refused(), self.n_failed())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for client in &self.clients {
            client.abort();
        }
    }
}

async fn live(client: Client, exchange: Exchange, tally: Arc<Tally>) {
    while !tally.is_over.load(Ordering::Relaxed) {
        let answer = client.send(&exchange).await;
        let (count, pause) = match &answer {
            Ok(answer) if answer.ended != Ended::Whole => (&tally.n_failed, PAUSE),
            Ok(answer) if answer.status == Some(200) => (&tally.n_served, Duration::ZERO),
            Ok(answer) if answer.status == Some(429) => (&tally.n_refused, PAUSE),
            _ => (&tally.n_failed, PAUSE),
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Ok(answer) = &answer {
            client.forget(answer);
        }
        tokio::time::sleep(pause).await;
    }
}
