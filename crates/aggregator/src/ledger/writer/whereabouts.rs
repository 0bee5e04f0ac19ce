//! Whether the writer's files are still where they are looked for, before each use of them.

use std::sync::atomic::Ordering;

use crate::ledger::error::{LedgerError, Missed};
use crate::ledger::mark::Became;
use crate::ledger::site::Site;
use crate::ledger::writer::{Writer, chain};
use crate::ledger::{rescue, schema};

impl Writer {
    /// Finds out whether what is open is still what stands at the ledger's path, and the lock with
    /// it. Where it is not, nothing is acknowledged until all that is open is where it is found.
    pub(super) fn look(&mut self) -> Result<(), LedgerError> {
        let held = self.hold();
        let Some(store) = &self.store else {
            return held.and_then(|()| self.look_inside());
        };
        let Ok(found) = Site::at(&self.path) else {
            // It cannot be known; the lock's own error would say why.
            return held;
        };
        let Some(missed) = rescue::missed(store, found.as_ref()) else {
            if held.is_err() {
                self.let_go();
            }
            return held.and_then(|()| self.look_inside());
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

    /// Holds the lock. Where it was lost, others may write the file, as this one does.
    fn hold(&mut self) -> Result<(), LedgerError> {
        let held = self.lock.hold();
        if !matches!(held, Ok(false)) {
            self.marked.forget();
        }
        held.map(drop)
    }

    /// Finds out whether the file still holds what was written. What another program made of it is
    /// judged when it stands still; nothing is written or answered until then.
    fn look_inside(&mut self) -> Result<(), LedgerError> {
        let Some(altered) = self.marked.alteration() else {
            self.rescue.is_known_again();
            self.reader.doubt(false);
            return Ok(());
        };
        self.reader.doubt(true);
        if !self.rescue.stands_still(altered.stamp) {
            return Err(rescue::moved(&self.path, Missed::Overwritten));
        }
        let judged = match altered.became {
            // Whatever its begin says: all of it is looked through.
            Became::AnotherLength => match &self.store {
                Some(store) => store.examine(),
                None => Ok(()),
            },
            Became::Another => {
                self.shared.moved.fetch_add(1, Ordering::Relaxed);
                let path = self.path.display();
                tracing::error!(
                    %path,
                    "the ledger was overwritten, and goes on with what stands there now; what the \
                     former one had recorded may be imported from Envoy's access log"
                );
                rescue::part(&self.path)
            }
            Became::Broken => Err(LedgerError::Damaged {
                path: self.path.clone(),
                found: "it was overwritten with what is no database".to_owned(),
            }),
        };
        if let Err(LedgerError::Unsaved { .. }) = judged {
            return judged;
        }
        self.rescue.is_known_again();
        self.let_go();
        self.reader.doubt(false);
        judged
    }

    /// Whether the file is another's now, at the end: then its log is moved away from it.
    pub(super) fn is_parted(&mut self) -> bool {
        if self.hold().is_err() {
            return false;
        }
        let altered = self.marked.alteration();
        let is_anothers = altered.is_some_and(|altered| altered.became != Became::AnotherLength);
        if is_anothers && let Err(error) = rescue::part(&self.path) {
            tracing::error!(error = %chain(&error), "the ledger's log stays beside another file");
        }
        is_anothers
    }

    fn let_go(&mut self) {
        self.store = None;
        self.marked.forget();
        self.reader.close();
        self.reader.follow(None);
    }
}
