//! The model, as long as a test may take; the full one is `cargo xtask model`.

use super::Fault;
use super::model::{InMemory, Outcome, SCENARIOS, Scenario, run};

/// Steps of a run: about six minutes.
const STEPS: usize = 2_000;
const SEEDS: u64 = 12;

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
        let mut tried = SCENARIOS
            .iter()
            .flat_map(|s| (0..SEEDS).map(move |seed| (s, seed)));
        let found = tried.find(|(scenario, seed)| !play(*seed, scenario, Some(fault)).holds());
        assert!(found.is_some(), "nobody noticed {fault:?}");
    }
}
