//! The forwarding of rows, and their export: begun with the process, and finished after its servers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::forward::{self, Courier};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::otlp::{self, Exporter};

/// The forwarding of rows, or their export, which goes on when the servers have ended.
pub struct Forwarding {
    stop: watch::Sender<bool>,
    courier: JoinHandle<()>,
    /// How it is.
    pub status: Arc<Mutex<forward::Status>>,
}

impl Forwarding {
    /// Forwards the ledger's rows until it is told to finish.
    pub fn start(ledger: Ledger, settings: forward::Settings, metrics: Arc<Metrics>) -> Forwarding {
        tracing::info!(to = %settings.place, "calls are forwarded");
        let courier = Courier::new(ledger, settings, metrics);
        let stop = watch::Sender::new(false);
        Forwarding {
            status: courier.status(),
            courier: tokio::spawn(courier.run(stop.subscribe())),
            stop,
        }
    }

    /// Exports them.
    pub fn export(
        ledger: Ledger,
        settings: &otlp::Settings,
        tags: Vec<String>,
        metrics: Arc<Metrics>,
    ) -> Forwarding {
        tracing::info!(to = %settings.endpoint, "calls are exported");
        let exporter = Exporter::new(ledger, settings.clone(), tags, metrics);
        let stop = watch::Sender::new(false);
        Forwarding {
            status: exporter.status(),
            courier: tokio::spawn(exporter.run(stop.subscribe())),
            stop,
        }
    }

    /// Brings what is left, at most for `patience`; says what is left then, and that it was not
    /// `done`.
    pub async fn finish(self, patience: Duration, done: &'static str) {
        self.stop.send_replace(true);
        // One that is still on its way has brought whole parcels only.
        let in_time = tokio::time::timeout(patience, self.courier).await;
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let (pending, pending_outcomes) = (status.pending, status.pending_outcomes);
        if in_time.is_err() || pending > 0 || pending_outcomes > 0 {
            tracing::warn!(
                pending,
                pending_outcomes,
                "calls were not {done}; they are when this state_dir is served again"
            );
        }
    }
}
