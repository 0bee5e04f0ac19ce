//! Whether the writer's files are still where they are looked for, before each use of them.

use std::sync::atomic::Ordering;

use crate::ledger::error::LedgerError;
use crate::ledger::site::Site;
use crate::ledger::writer::{Writer, chain};
use crate::ledger::{rescue, schema};

impl Writer {
    /// Finds out whether what is open is still what stands at the ledger's path, and the lock with
    /// it. Where it is not, nothing is acknowledged until all that is open is where it is found.
    pub(super) fn look(&mut self) -> Result<(), LedgerError> {
        let held = self.lock.hold();
        let Some(store) = &self.store else {
            return held;
        };
        let Ok(found) = Site::at(&self.path) else {
            // It cannot be known; the lock's own error would say why.
            return held;
        };
        let Some(missed) = rescue::missed(store, found.as_ref()) else {
            if held.is_err() {
                self.let_go();
            }
            return held;
        };
        let is_news = !self.ails();
        // Said before it is mended, which takes as long as the ledger takes to be copied.
        drop(self.ail(rescue::moved(&self.path, missed)));
        self.shared
            .moved
            .fetch_add(u64::from(is_news), Ordering::Relaxed);
        self.save(found.as_ref(), held.is_ok())?;
        held
    }

    /// Brings what is open to where it is found, and lets go of it.
    fn save(&mut self, found: Option<&Site>, is_ours: bool) -> Result<(), LedgerError> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        match self.rescue.save(&self.path, store, found, is_ours) {
            Err(error) if schema::is_damage(&error) => {
                tracing::error!(error = %chain(&error), "what is open cannot be copied whole");
            }
            // What is open stays open: nothing else has what it has.
            Err(error) => {
                if !matches!(error, LedgerError::Moved { .. }) {
                    tracing::error!(error = %chain(&error), "what is open cannot be saved yet");
                }
                return Err(error);
            }
            Ok(()) => {}
        }
        self.let_go();
        Ok(())
    }

    fn let_go(&mut self) {
        self.store = None;
        self.reader.close();
        self.reader.follow(None);
    }
}
