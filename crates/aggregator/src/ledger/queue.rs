//! The bounded queue before the writer, and how what waits in it is taken together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use tokio::sync::oneshot;

use crate::ledger::budgets::{Adopted, Identity, Step as BudgetStep};
use crate::ledger::entry::{Appended, Entry, Quarantined};
use crate::ledger::error::{AppendError, LedgerError};
use crate::ledger::outbox::Note;
use crate::ledger::outcomes::{CallOutcome, Told};
use crate::ledger::reprice::{Place, Repricing, Step};
use crate::ledger::store::Store;
use crate::ledger::writer::Writer;

/// Events that one transaction takes. More would not commit faster, and the first batch in it
/// waits for the last.
const GROUP_EVENTS_MAX: usize = 4_096;

/// The answer to one batch.
pub type Answer = Result<Appended, AppendError>;

/// The answer to one step of repricing.
pub type Repriced = Result<Step, AppendError>;

/// The answer to something else that the writer does in one step.
pub type Stepped<T> = Result<T, AppendError>;

/// A step of housekeeping, which answers by itself.
pub type Chore = Box<dyn FnOnce(&mut Writer) + Send>;

/// One batch that waits.
pub struct Batch {
    pub entries: Vec<Entry>,
    pub quarantine: Vec<Quarantined>,
}

/// What the writer is asked for.
pub enum Message {
    Append(Batch, oneshot::Sender<Answer>),
    Then(After),
}

/// The bounded way to the writer.
pub struct Queue {
    sender: Sender<Message>,
    events: Arc<AtomicUsize>,
    events_max: usize,
}

/// What one transaction takes, and what is to be done after it.
#[derive(Default)]
pub struct Group {
    pub batches: Vec<Batch>,
    pub answers: Vec<oneshot::Sender<Answer>>,
    pub after: Option<After>,
}

/// What follows a transaction.
pub enum After {
    Chore(Chore),
    Note(Note, oneshot::Sender<Result<(), AppendError>>),
    Reprice(Repricing, Option<Place>, oneshot::Sender<Repriced>),
    Tell(Vec<CallOutcome>, oneshot::Sender<Stepped<Vec<Told>>>),
    Fold(i64, oneshot::Sender<Stepped<bool>>),
    Begin(oneshot::Sender<Stepped<Identity>>),
    Adopt(Vec<Adopted>, oneshot::Sender<Stepped<()>>),
    Budgets(BudgetStep, oneshot::Sender<Stepped<()>>),
    Close(oneshot::Sender<()>),
}

/// A queue for at most that many events, and the writer's end of it: messages, and the count of
/// events that wait, which the writer lowers when it has answered them.
pub fn bounded(events_max: usize) -> (Queue, Receiver<Message>, Arc<AtomicUsize>) {
    let (sender, receiver) = mpsc::channel();
    let events = Arc::new(AtomicUsize::new(0));
    let queue = Queue {
        sender,
        events: Arc::clone(&events),
        events_max,
    };
    (queue, receiver, events)
}

// === impl Queue ===

impl Queue {
    /// Queues a batch; the answer comes after its commit. A batch larger than the whole queue is
    /// taken when nothing else waits, else it could never be.
    pub fn push(
        &self,
        entries: Vec<Entry>,
        quarantine: Vec<Quarantined>,
    ) -> Result<oneshot::Receiver<Answer>, AppendError> {
        let n = entries.len() + quarantine.len();
        self.events
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |queued| {
                (queued == 0 || queued + n <= self.events_max).then_some(queued + n)
            })
            .map_err(|queued| AppendError::Busy { queued })?;
        let (answer, receiver) = oneshot::channel();
        let batch = Batch {
            entries,
            quarantine,
        };
        self.sender
            .send(Message::Append(batch, answer))
            .map_err(|_| AppendError::Closed)?;
        Ok(receiver)
    }

    /// Asks for a step of housekeeping; the answer is what it found.
    pub fn chore<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Store) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Stepped<T>>, AppendError> {
        let (answer, receiver) = oneshot::channel();
        let chore: Chore = Box::new(move |writer| {
            // Whoever asked may have gone.
            let _ = answer.send(writer.step(step));
        });
        self.sender
            .send(Message::Then(After::Chore(chore)))
            .map_err(|_| AppendError::Closed)?;
        Ok(receiver)
    }

    /// Asks for calls of the copy with that name to be taken in.
    pub fn take_in(
        &self,
        entries: Vec<Entry>,
        copy: Option<String>,
    ) -> Result<oneshot::Receiver<Answer>, AppendError> {
        let (answer, receiver) = oneshot::channel();
        let chore: Chore = Box::new(move |writer| {
            let _ = answer.send(writer.take_in(entries, copy.as_deref()));
        });
        self.sender
            .send(Message::Then(After::Chore(chore)))
            .map_err(|_| AppendError::Closed)?;
        Ok(receiver)
    }

    /// Asks for a step of forwarding to be noted.
    pub fn note(
        &self,
        note: Note,
    ) -> Result<oneshot::Receiver<Result<(), AppendError>>, AppendError> {
        let (answer, receiver) = oneshot::channel();
        self.sender
            .send(Message::Then(After::Note(note, answer)))
            .map_err(|_| AppendError::Closed)?;
        Ok(receiver)
    }

    /// Asks for one step of repricing, after that place.
    pub fn reprice(
        &self,
        repricing: Repricing,
        after: Option<Place>,
    ) -> Result<oneshot::Receiver<Repriced>, AppendError> {
        let (answer, receiver) = oneshot::channel();
        self.sender
            .send(Message::Then(After::Reprice(repricing, after, answer)))
            .map_err(|_| AppendError::Closed)?;
        Ok(receiver)
    }

    /// Asks for outcomes to be written; the answers are in their order.
    pub fn tell(
        &self,
        outcomes: Vec<CallOutcome>,
    ) -> Result<oneshot::Receiver<Stepped<Vec<Told>>>, AppendError> {
        let (answer, receiver) = oneshot::channel();
        self.sender
            .send(Message::Then(After::Tell(outcomes, answer)))
            .map_err(|_| AppendError::Closed)?;
        Ok(receiver)
    }

    /// Asks for one step of folding hours before that one; the answer says whether there may be
    /// more.
    pub fn fold(&self, before_hour: i64) -> Result<oneshot::Receiver<Stepped<bool>>, AppendError> {
        let (answer, receiver) = oneshot::channel();
        self.sender
            .send(Message::Then(After::Fold(before_hour, answer)))
            .map_err(|_| AppendError::Closed)?;
        Ok(receiver)
    }

    /// Asks for another life of the budgets' enforcement to be noted.
    pub fn begin(&self) -> Result<oneshot::Receiver<Stepped<Identity>>, AppendError> {
        let (answer, receiver) = oneshot::channel();
        self.sender
            .send(Message::Then(After::Begin(answer)))
            .map_err(|_| AppendError::Closed)?;
        Ok(receiver)
    }

    /// Asks for events to be charged to these budgets from then on.
    pub fn adopt(
        &self,
        budgets: Vec<Adopted>,
    ) -> Result<oneshot::Receiver<Stepped<()>>, AppendError> {
        let (answer, receiver) = oneshot::channel();
        self.sender
            .send(Message::Then(After::Adopt(budgets, answer)))
            .map_err(|_| AppendError::Closed)?;
        Ok(receiver)
    }

    /// Asks for a step of the budgets' own.
    pub fn budgets(&self, step: BudgetStep) -> Result<oneshot::Receiver<Stepped<()>>, AppendError> {
        let (answer, receiver) = oneshot::channel();
        self.sender
            .send(Message::Then(After::Budgets(step, answer)))
            .map_err(|_| AppendError::Closed)?;
        Ok(receiver)
    }

    /// Events that wait.
    pub fn events(&self) -> usize {
        self.events.load(Ordering::Acquire)
    }

    /// Asks the writer to end after what waits; `None` if it has ended already.
    pub fn close(&self) -> Option<oneshot::Receiver<()>> {
        let (done, receiver) = oneshot::channel();
        self.sender
            .send(Message::Then(After::Close(done)))
            .ok()
            .map(|()| receiver)
    }
}

// === impl Group ===

impl Group {
    /// The first message and all that wait behind it, as far as one transaction goes.
    pub fn gather(first: Message, receiver: &Receiver<Message>) -> Group {
        let mut group = Group::default();
        let mut n = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Append(batch, answer) => {
                    n += batch.len();
                    group.batches.push(batch);
                    group.answers.push(answer);
                }
                Message::Then(after) => {
                    group.after = Some(after);
                    return group;
                }
            }
            next = match n < GROUP_EVENTS_MAX {
                true => receiver.try_recv().ok(),
                false => None,
            };
        }
        group
    }
}

// === impl Batch ===

impl Batch {
    /// Events in it, good and bad.
    pub fn len(&self) -> usize {
        self.entries.len() + self.quarantine.len()
    }
}
