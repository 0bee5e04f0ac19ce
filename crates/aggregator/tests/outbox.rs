//! The ledger as an outbox: whatever happens on the way, the other side ends up with every row as it
//! is now.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tollmesh_aggregator::ledger::outbox::{Cells, Note, Parcel};
use tollmesh_aggregator::ledger::{CostRecord, Entry, Ledger, LedgerOptions};
use tollmesh_aggregator::money::PicoUsd;
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::event::Kind;
use tollmesh_wire::{Event, Timestamp};

/// An hour's begin, which is also a day's.
const START_MS: i64 = 1_795_305_600_000;

fn open(dir: &Path) -> Ledger {
    Ledger::open(LedgerOptions::new(dir).forwards(true)).unwrap()
}

/// Waits for an answer on a runtime of its own: these tests need no more.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn add(ledger: &Ledger, event: Event, pico: i64) {
    let cost = CostRecord {
        total: Some(PicoUsd::from_pico(pico)),
        ..CostRecord::free(Arc::from("digest"))
    };
    let entry = Entry { event, cost };
    block_on(ledger.append(vec![entry], Vec::new())).unwrap();
}

/// A background call whose usage is yet to come.
fn call(n: usize) -> Event {
    Event {
        event_id: format!("e{n}"),
        time: Timestamp::from_unix_ms(START_MS + n as i64),
        provider: "openai".into(),
        response_id: Some(format!("r{n}")),
        usage_source: "absent".into(),
        ..Event::default()
    }
}

/// The usage of that call.
fn late(n: usize) -> Event {
    Event {
        event_id: format!("late{n}"),
        kind: Kind::LateUsage,
        usage: Usage::new().with(Bucket::Output, 7),
        usage_source: "reported".into(),
        ..call(n)
    }
}

fn parcel(ledger: &Ledger, rows_max: usize) -> Parcel {
    ledger.reader().parcel(rows_max).unwrap()
}

fn forwarded(ledger: &Ledger, parcel: &Parcel) {
    let note = Note::Forwarded {
        upto: parcel.upto,
        rows: parcel.rows.clone(),
        outcomes_upto: parcel.outcomes_upto,
        parcel: parcel.number,
    };
    block_on(ledger.note(note)).unwrap();
}

fn ids(parcel: &Parcel) -> Vec<String> {
    let found = parcel.columns.iter().find_map(|(name, cells)| match cells {
        Cells::Texts(texts) if *name == "event_id" => Some(texts),
        _ => None,
    });
    found.unwrap().iter().flatten().cloned().collect()
}

#[test]
fn rows_leave_in_order_and_altered_ones_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    (0..5).for_each(|n| add(&ledger, call(n), 1));
    let progress = ledger.reader().progress().unwrap();
    assert_eq!((progress.pending, progress.ledger_id.len()), (5, 32));
    assert_eq!(progress.oldest, Some(Timestamp::from_unix_ms(START_MS)));
    let first = parcel(&ledger, 3);
    assert_eq!(ids(&first), ["e0", "e1", "e2"]);
    assert_eq!(first.integers("cost_pico"), [Some(1); 3]);
    // Altered after its reading: what was read is not what is to be there.
    add(&ledger, late(1), 9);
    forwarded(&ledger, &first);
    let second = parcel(&ledger, 10);
    assert_eq!(ids(&second), ["e1", "e3", "e4"]);
    assert_eq!(second.rows[0].1, 1, "a first alteration");
    assert_eq!(second.integers("cost_pico")[0], Some(9));
    forwarded(&ledger, &second);
    assert!(parcel(&ledger, 10).is_empty());
    let progress = ledger.reader().progress().unwrap();
    assert_eq!((progress.pending, progress.oldest), (0, None));
    add(&ledger, late(0), 9);
    assert_eq!(ids(&parcel(&ledger, 10)), ["e0"]);
    assert_eq!(ledger.reader().progress().unwrap().pending, 1);
}

#[test]
fn what_another_store_lost_is_pending_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    (0..4).for_each(|n| add(&ledger, call(n), 1));
    forwarded(&ledger, &parcel(&ledger, 10));
    add(&ledger, late(0), 2);
    forwarded(&ledger, &parcel(&ledger, 10));
    let resend = Note::Resend {
        month: "2026-11".into(),
        lost: 3,
        from_ms: START_MS + 1,
        to_ms: START_MS + 3,
    };
    block_on(ledger.note(resend)).unwrap();
    assert_eq!(ids(&parcel(&ledger, 10)), ["e1", "e2"]);
    assert_eq!(ledger.reader().progress().unwrap().lost["2026-11"], 3);
    let from = ledger.reader().progress().unwrap().forwarded_row - 1;
    block_on(ledger.note(Note::Restart { from, parcel: 0 })).unwrap();
    // The altered one too: the store may have it as it was.
    assert_eq!(ids(&parcel(&ledger, 10)), ["e0", "e1", "e2", "e3"]);
    assert!(ledger.reader().progress().unwrap().lost.is_empty());
}

#[test]
fn retention_spares_what_is_not_forwarded() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    (0..4).for_each(|n| add(&ledger, call(n), 1));
    forwarded(&ledger, &parcel(&ledger, 2));
    add(&ledger, late(0), 2);
    let later = Timestamp::from_unix_ms(START_MS + 86_400_000);
    assert_eq!(block_on(ledger.prune(later)).unwrap(), 1);
    let rest = parcel(&ledger, 10);
    assert_eq!(ids(&rest), ["e0", "e2", "e3"]);
    forwarded(&ledger, &rest);
    assert_eq!(block_on(ledger.prune(later)).unwrap(), 3);
    // Where nobody forwards any more, nothing is spared.
    let next = Event {
        time: later,
        ..call(9)
    };
    add(&ledger, next, 1);
    block_on(ledger.close());
    let ledger = Ledger::open(LedgerOptions::new(dir.path())).unwrap();
    let later = Timestamp::from_unix_ms(START_MS + 2 * 86_400_000);
    assert_eq!(block_on(ledger.prune(later)).unwrap(), 1);
}

/// What may happen.
#[derive(Clone, Copy, Debug)]
enum Happens {
    /// A call is made.
    Call,
    /// The usage of an earlier one is retrieved.
    Late(usize),
    /// A parcel is read, of so many rows at most; during that, a row is altered.
    Parcel(usize, Option<usize>),
    /// The store takes the last parcel read, and we hear of it.
    Delivered,
    /// It takes it, and the answer is lost.
    Unanswered,
    /// The store is set back to what it had when it last had that many rows.
    Restored(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => Just(Happens::Call),
        2 => (0..8_usize).prop_map(Happens::Late),
        4 => (1..5_usize, prop::option::of(0..8_usize))
            .prop_map(|(rows, altered)| Happens::Parcel(rows, altered)),
        4 => Just(Happens::Delivered),
        1 => Just(Happens::Unanswered),
        1 => (0..8_usize).prop_map(Happens::Restored),
    ]
}

/// A store: event ids with revision and cost, how far it has come, and by which parcel.
type State = (BTreeMap<String, (i64, Option<i64>)>, i64, i64);

/// Takes a parcel as the store's statements do: the higher revision wins.
fn take(state: &mut State, parcel: &Parcel) {
    let costs = parcel.integers("cost_pico");
    for ((id, (_, revision)), cost) in ids(parcel).into_iter().zip(&parcel.rows).zip(costs) {
        let row = state.0.entry(id).or_insert((-1, None));
        if row.0 < *revision {
            *row = (*revision, *cost);
        }
    }
    state.1 = state.1.max(parcel.upto.unwrap_or(0));
    state.2 = parcel.number;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn both_sides_agree_in_the_end(story in prop::collection::vec(happens(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        let (mut n_calls, mut store) = (0, State::default());
        let (mut on_its_way, mut past) = (Parcel::default(), vec![State::default()]);
        for step in story {
            match step {
                Happens::Call => {
                    add(&ledger, call(n_calls), 1);
                    n_calls += 1;
                }
                Happens::Late(n) => add(&ledger, late(n), 2 + n as i64),
                Happens::Parcel(rows, altered) => {
                    on_its_way = parcel(&ledger, rows);
                    altered.into_iter().for_each(|n| add(&ledger, late(n), 50 + n as i64));
                }
                Happens::Delivered | Happens::Unanswered => {
                    if !on_its_way.is_empty() {
                        take(&mut store, &on_its_way);
                        past.push(store.clone());
                    }
                    if matches!(step, Happens::Delivered) && !on_its_way.is_empty() {
                        forwarded(&ledger, &on_its_way);
                    }
                    on_its_way = Parcel::default();
                }
                Happens::Restored(n) => {
                    store = past[n % past.len()].clone();
                    on_its_way = Parcel::default();
                    let progress = ledger.reader().progress().unwrap();
                    let (from, parcel) = (store.1, store.2);
                    if from < progress.forwarded_row || parcel != progress.last_parcel {
                        block_on(ledger.note(Note::Restart { from, parcel })).unwrap();
                    }
                }
            }
        }
        loop {
            let next = parcel(&ledger, 3);
            if next.is_empty() {
                break;
            }
            take(&mut store, &next);
            forwarded(&ledger, &next);
        }
        block_on(ledger.note(Note::Restart { from: 0, parcel: 0 })).unwrap();
        let mut all = State::default();
        let rows = parcel(&ledger, 1_000);
        take(&mut all, &rows);
        prop_assert_eq!(all.0.len(), n_calls);
        prop_assert_eq!(store.0, all.0);
    }
}
