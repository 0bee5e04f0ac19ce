//! Bytes that change inside the ledger's pages: never an answer, never money.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tollmesh_aggregator::ledger::query::{Dimension, Page, RequestsQuery, SpendQuery, SpendRow};
use tollmesh_aggregator::ledger::{
    CostRecord, Entry, Ledger, LedgerError, LedgerOptions, QueryError, Reader,
};
use tollmesh_aggregator::money::PicoUsd;
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::{Event, Timestamp};

/// An amount whose bytes are found nowhere else in the file.
const AMOUNT_PICO: i64 = 0x0123_4567_89ab_cdef;

/// 2026-11-01T00:00:00Z.
const START_MS: i64 = 1_793_491_200_000;

fn call(n: i64, pico: i64) -> Entry {
    Entry {
        event: Event {
            event_id: format!("{n:016x}"),
            time: Timestamp::from_unix_ms(START_MS + n * 10_000),
            provider: "openai".into(),
            model: Some("gpt-5".into()),
            usage: Usage::new().with(Bucket::Input, n.unsigned_abs()),
            usage_source: "reported".into(),
            billable: true,
            finish_reason: Some("stop".into()),
            tags: [("team".to_owned(), (n % 5).to_string())].into(),
            ..Event::default()
        },
        cost: CostRecord {
            total: Some(PicoUsd::from_pico(pico)),
            ..CostRecord::free(Arc::from("digest"))
        },
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// A ledger of some hundred calls, closed.
fn make(dir: &Path) {
    let ledger = Ledger::open(LedgerOptions::new(dir)).unwrap();
    let mut calls: Vec<Entry> = (0..400).map(|n| call(n, n)).collect();
    // Not in the first page of calls or the last one, which opening reads.
    calls[200] = call(200, AMOUNT_PICO);
    run(ledger.append(calls, vec![])).unwrap();
    run(ledger.fold(Timestamp::from_unix_ms(START_MS + 3_600_000))).unwrap();
    run(ledger.close());
}

/// Turns bits of one byte over.
fn flip(file: &Path, at: u64, mask: u8) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at).unwrap();
}

fn ask(reader: &Reader) -> Result<(Vec<SpendRow>, Page), QueryError> {
    let spend = reader.spend(&SpendQuery {
        by: vec![Dimension::parse("team")],
        ..SpendQuery::default()
    })?;
    let rows = reader.requests(&RequestsQuery {
        limit: 1_000,
        ..RequestsQuery::default()
    })?;
    Ok((spend, rows))
}

#[test]
fn an_amount_that_changed_is_refused_and_its_file_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let file = dir.path().join("ledger.db");
    let content = std::fs::read(&file).unwrap();
    let bytes = AMOUNT_PICO.to_be_bytes();
    let place = content.windows(8).position(|window| window == bytes);
    flip(&file, place.unwrap() as u64 + 2, 0x40);

    let ledger = Ledger::open(LedgerOptions::new(dir.path())).unwrap();
    let refused = ask(ledger.reader()).unwrap_err();
    let QueryError::Ledger(LedgerError::Damaged { found, .. }) = &refused else {
        panic!("{refused:?}");
    };
    assert!(found.ends_with("is not as it was written"), "{found}");

    let deadline = Instant::now() + Duration::from_secs(10);
    while ledger.health().set_aside == 0 {
        assert!(Instant::now() < deadline, "it is not set aside");
        std::thread::yield_now();
    }
    assert!(dir.path().join("ledger.db.damaged-1").exists());
    run(ledger.append(vec![call(1, 7)], vec![])).unwrap();
    let (spend, rows) = ask(ledger.reader()).unwrap();
    assert_eq!((spend.len(), rows.items.len()), (1, 1));
    run(ledger.close());
}

#[test]
fn a_copy_has_checksums_too() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("ledger.db");
    let reader = Reader::open(dir.path()).unwrap();
    reader.backup(&copy, &mut |_| {}).unwrap();
    let whole = ask(&reader).unwrap();
    assert_eq!(ask(&Reader::open(copies.path()).unwrap()).unwrap(), whole);
    let content = std::fs::read(&copy).unwrap();
    let bytes = AMOUNT_PICO.to_be_bytes();
    let place = content.windows(8).position(|window| window == bytes);
    flip(&copy, place.unwrap() as u64, 0x01);
    let damaged = Reader::open(copies.path()).unwrap();
    assert!(ask(&damaged).is_err());
    let audit = damaged.audit(&mut |_| {}).unwrap();
    let finding = audit.findings.first().unwrap().to_string();
    assert!(finding.contains("is not as it was written"), "{finding}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_byte_of_the_file_changes_an_answer(at in 0.0..1.0_f64, mask in 1..=255_u8) {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let whole = ask(&Reader::open(dir.path()).unwrap()).unwrap();
        let file = dir.path().join("ledger.db");
        let bytes = std::fs::metadata(&file).unwrap().len();
        let at = (at * bytes as f64) as u64;
        flip(&file, at, mask);
        let asked = Reader::open(dir.path()).map_err(QueryError::from).and_then(|r| ask(&r));
        if let Ok(answer) = asked {
            prop_assert_eq!(answer, whole, "byte {}", at);
            // What no question of these has read is found by looking at everything.
            let audit = Reader::open(dir.path()).unwrap().audit(&mut |_| {});
            prop_assert!(audit.is_ok_and(|audit| !audit.findings.is_empty()), "byte {}", at);
        }
    }
}
