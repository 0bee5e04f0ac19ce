//! The model, as long as a test may take; the full one is `cargo xtask model`.

use proptest::prelude::*;

use super::model::{Backend, InMemory, Outcome, SCENARIOS, Scenario, run};
use super::{
    Carried, Fault, Holder, NoReservationId, Refusal, Reply, Report, ReservationId, Terms,
};

/// Steps of a run: about six minutes.
const STEPS: usize = 2_000;
const SEEDS: u64 = 40;
/// Of each scenario, until somebody notices.
const SEEDS_OF_MUTANTS: u64 = 500;

fn play(seed: u64, scenario: &Scenario, fault: Option<Fault>) -> Outcome {
    run(seed, STEPS, scenario, &mut InMemory::new(fault))
}

#[test]
fn no_limit_is_passed_by_more_than_what_a_store_cannot_know() {
    for scenario in SCENARIOS {
        for seed in 0..SEEDS {
            let outcome = play(seed, scenario, None);
            assert!(
                outcome.holds() && outcome.n_differing == 0,
                "{}, seed {seed}: {outcome:?}",
                scenario.name
            );
            if !scenario.loses_data() {
                assert_eq!(outcome.overspent, 0, "{}, seed {seed}", scenario.name);
            }
        }
    }
}

#[test]
fn every_rule_is_needed() {
    for fault in Fault::ALL {
        let seeds = 0..SEEDS_OF_MUTANTS;
        let mut tried = seeds.flat_map(|seed| SCENARIOS.iter().map(move |s| (s, seed)));
        let found = tried.find(|(scenario, seed)| !play(*seed, scenario, Some(fault)).holds());
        assert!(found.is_some(), "nobody noticed {fault:?}");
    }
}

fn terms() -> Terms {
    Terms::new(1_000, 4_102_444_800_000)
}

/// A holder that reports by itself, and a store that answers at once.
struct Node(&'static str, Holder, u64);

impl Node {
    fn new(name: &'static str) -> Node {
        Node(name, Holder::default(), 0)
    }

    fn beat(&mut self, store: &mut InMemory, now_ms: u64, want: u64) -> Reply {
        self.2 += 1;
        let report = self.1.report(now_ms, self.2, want);
        let reply = store.sync(now_ms, self.0, &report, &terms());
        if let Some(granted) = self.1.take(&reply, now_ms) {
            self.1.persisted(granted);
        }
        reply
    }
}

/// A store that has granted one node a half, and then falls back to a copy from before.
fn after_failover(fault: Option<Fault>) -> (InMemory, Node, Node) {
    let mut store = InMemory::new(fault);
    let (mut one, mut other) = (Node::new("one"), Node::new("other"));
    one.beat(&mut store, 1_000, 0);
    other.beat(&mut store, 1_000, 0);
    let copy = store.copy();
    assert_eq!(one.beat(&mut store, 20_000, 500).granted, 500);
    let id = ReservationId { boot: 1, number: 1 };
    one.1.reserve(20_001, id, 500).unwrap();
    store.become_copy(&copy);
    (store, one, other)
}

#[test]
fn what_a_holder_was_granted_counts_though_the_store_forgot_it() {
    let run = |fault: Option<Fault>| {
        let (mut store, mut one, mut other) = after_failover(fault);
        let first = one.beat(&mut store, 21_000, 0);
        let waiting = other.beat(&mut store, 22_000, 1_000);
        let mut granted = 0;
        for _ in 0..20 {
            granted = other.beat(&mut store, 36_000, 1_000).granted;
        }
        (first.granted, waiting.granted, granted)
    };
    assert_eq!(run(None), (500, 0, 500));
    assert_eq!(run(Some(Fault::NoClaimMerge)), (0, 0, 1_000));
    assert_eq!(run(Some(Fault::NoVersionCheck)), (500, 250, 500));
}

#[test]
fn a_report_from_before_a_loss_gives_nothing_back_that_was_given_up() {
    let run = |fault: Option<Fault>| {
        let mut store = InMemory::new(fault);
        let (mut one, mut other) = (Node::new("one"), Node::new("other"));
        one.beat(&mut store, 1_000, 0);
        one.beat(&mut store, 20_000, 500);
        let late = one.1.report(21_000, 3, 500);
        one.2 = 3;
        // It gives up all, and the other one gets most of it; then the store is emptied, and the
        // report from before it gave up comes late.
        one.beat(&mut store, 22_000, 0);
        while other.beat(&mut store, 23_000, 1_000).granted < 900 {}
        store.empty();
        store.sync(24_000, "one", &late, &terms());
        one.beat(&mut store, 25_000, 500).granted
    };
    assert_eq!(run(None), 0);
    assert_eq!(run(Some(Fault::RecordWithoutRoom)), 500);
}

#[test]
fn a_new_store_grants_a_part_after_two_seconds_and_all_after_thirteen() {
    let mut store = InMemory::new(None);
    let mut node = Node::new("one");
    let first = node.beat(&mut store, 100_000, 1_000);
    assert_eq!((first.granted, first.granting_from_ms), (0, 102_000));
    let id = ReservationId { boot: 1, number: 1 };
    let refusal = node.1.reserve(100_001, id, 1);
    assert_eq!(refusal, Err(Refusal::Rebuilding { until_ms: 102_000 }));
    for _ in 0..9 {
        node.beat(&mut store, 102_000, 1_000);
    }
    assert_eq!(node.1.granted(), 100);
    for _ in 0..12 {
        node.beat(&mut store, 113_000, 1_000);
    }
    assert_eq!(node.1.granted(), 1_000);
}

#[test]
fn a_holder_goes_by_what_it_has_on_disk() {
    let mut holder = Holder::default();
    let report = holder.report(0, 1, 100);
    let mut store = InMemory::new(None);
    store.sync(0, "one", &report, &terms());
    let report = holder.report(20_000, 2, 100);
    let reply = store.sync(20_000, "one", &report, &terms());
    let id = |number| ReservationId { boot: 1, number };
    assert_eq!(holder.take(&reply, 20_000), Some(100));
    assert_eq!(holder.reserve(20_000, id(1), 60), Err(Refusal::NeedsGrant));
    holder.persisted(100);
    assert_eq!(holder.reserve(20_000, id(1), 60), Ok(()));
    assert_eq!(holder.reserve(20_000, id(1), 60), Ok(()), "the same call");
    assert_eq!(holder.reserve(20_000, id(2), 41), Err(Refusal::NeedsGrant));
    assert_eq!(holder.reserve(28_999, id(3), 40), Ok(()));
    assert_eq!(holder.reserve(29_000, id(4), 0), Err(Refusal::Expired));

    let earlier = holder.reserve(19_999, id(5), 1);
    assert_eq!(
        earlier,
        Err(Refusal::NeedsGrant),
        "a clock that was read before the report"
    );

    // A crash: both calls may still spend; nothing new may until they cannot any more.
    let carried = Carried {
        granted: 100,
        until_ms: 90_000,
        boot: 2,
        memory: holder.memory(),
    };
    let mut holder = Holder::new(0, Some(carried));
    assert_eq!((holder.held(), holder.left()), (100, 0));
    holder.settle(Some(id(1)), 25);
    assert_eq!((holder.committed(), holder.held()), (25, 75));
    let report = holder.report(30_000, 3, 0);
    assert_eq!((report.claim, report.want, report.firm), (100, 75, 25));
    let report = holder.report(90_000, 4, 0);
    assert_eq!((report.claim, report.want, report.firm), (25, 0, 25));
}

#[test]
fn reservations_are_written_as_they_are_read() {
    let id = ReservationId {
        boot: 3,
        number: 1_207,
    };
    assert_eq!(id.to_string(), "r3-1207");
    assert_eq!("r3-1207".parse(), Ok(id));
    for wrong in ["", "r3", "3-1", "r-1", "r3-x", "r99999999999-1"] {
        assert_eq!(
            wrong.parse::<ReservationId>(),
            Err(NoReservationId),
            "{wrong:?}"
        );
    }
}

proptest! {
    /// Whatever is lost, doubled and overtaken, the store's sums are those of the last reports.
    #[test]
    fn sums_are_those_of_the_last_reports(
        sent in proptest::collection::vec((0_usize..3, 0_u64..50, 0_u64..80), 1..30),
        delivered in proptest::collection::vec(0_usize..30, 1..90),
    ) {
        let names = ["one", "two", "three"];
        let mut totals = [0; 3];
        let reports: Vec<(usize, Report)> = sent
            .iter()
            .enumerate()
            .map(|(n, (node, spent, want))| {
                totals[*node] += spent;
                let committed = totals[*node];
                let seq = n as u64 + 1;
                (*node, Report { seq, committed, claim: committed, firm: committed, want: *want,
                    ..Report::default() })
            })
            .collect();
        let mut store = InMemory::new(None);
        let mut last = [Report::default(); 3];
        for n in delivered {
            let Some((node, report)) = reports.get(n) else { continue };
            if report.seq > last[*node].seq {
                last[*node] = *report;
            }
            let reply = store.sync(1_000, names[*node], report, &terms());
            let spent: u64 = last.iter().map(|report| report.committed).sum();
            prop_assert_eq!(reply.spent, spent);
            prop_assert!(reply.allocated >= spent);
        }
    }
}

#[test]
fn what_calls_wait_for_is_given_in_one_step_and_stock_in_many() {
    let mut store = InMemory::new(None);
    store.sync(100_000, "first", &Report::default(), &terms());
    let now_ms = 200_000;
    for n in 0..50 {
        let report = Holder::default().report(now_ms, 1, 2);
        store.sync(now_ms, &format!("node {n}"), &report, &terms());
    }
    let mut asked = |seq, want, need| {
        let report = Report {
            need,
            ..Holder::default().report(now_ms, seq, want)
        };
        store.sync(now_ms, "late", &report, &terms()).granted
    };
    assert_eq!(asked(1, 600, 0), 9, "a share of stock");
    assert_eq!(asked(2, 600, 500), 500);
    assert_eq!(asked(3, 990, 990), 500, "there is not so much");
}

#[test]
fn what_went_ahead_uncovered_is_asked_for_and_leaves_others_nothing() {
    let mut store = InMemory::new(None);
    let (mut one, mut other) = (Node::new("one"), Node::new("other"));
    one.beat(&mut store, 1_000, 0);
    one.beat(&mut store, 20_000, 0);
    let id = |number| ReservationId { boot: 1, number };
    for _ in 0..2 {
        one.1.hold_uncovered(20_001, id(1), 600);
    }
    assert_eq!(one.1.held(), 600);
    assert_eq!(one.1.reserve(20_001, id(2), 500), Err(Refusal::Exhausted));
    assert_eq!(one.1.reserve(20_001, id(2), 1), Err(Refusal::NeedsGrant));
    assert_eq!(one.beat(&mut store, 20_002, 0).granted, 600);
    assert_eq!(other.beat(&mut store, 20_003, 500).granted, 200);
    other.1.hold_uncovered(20_003, id(3), 700);
    assert_eq!(other.beat(&mut store, 20_003, 0).granted, 700);
    assert_eq!(one.beat(&mut store, 20_004, 90).granted, 600);
    assert_eq!(one.1.reserve(20_004, id(2), 1), Err(Refusal::Exhausted));
    other.1.release(id(3));
    other.beat(&mut store, 20_004, 0);
    one.1.settle(Some(id(1)), 50);
    assert_eq!(one.1.reserve(20_004, id(2), 550), Ok(()));
    assert_eq!(one.1.held(), 550);
}
