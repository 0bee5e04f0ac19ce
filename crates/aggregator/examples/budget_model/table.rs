//! What the runs of a scenario came to, as a row.

use tollmesh_budget::lease::model::{Outcome, Scenario};

/// Sums over seeds. Shares are of the limit, in parts of 10,000.
pub struct Row {
    store: String,
    name: &'static str,
    loses_data: bool,
    n_seeds: u64,
    n_overspent: u64,
    overspent_max: u64,
    bound_max: u64,
    used_sum: u64,
    n_broken: u64,
    n_unequal: u64,
    n_differing: u64,
    first_bad: Option<(u64, Outcome)>,
}

/// Prints the names of the columns.
pub fn head() {
    println!(
        "{:<7} {:<28} {:>6} {:>10} {:>8} {:>8} {:>7} {:>8} {:>9} {:>7}",
        "store",
        "scenario",
        "seeds",
        "overspent",
        "worst",
        "bound",
        "beyond",
        "unequal",
        "differing",
        "used"
    );
}

impl Row {
    /// An empty row.
    pub fn new(store: &str, scenario: &Scenario) -> Row {
        Row {
            store: store.to_owned(),
            name: scenario.name,
            loses_data: scenario.loses_data(),
            n_seeds: 0,
            n_overspent: 0,
            overspent_max: 0,
            bound_max: 0,
            used_sum: 0,
            n_broken: 0,
            n_unequal: 0,
            n_differing: 0,
            first_bad: None,
        }
    }

    /// Adds a run.
    pub fn add(&mut self, seed: u64, outcome: &Outcome) {
        let share = |amount: u64| amount * 10_000 / outcome.limit;
        self.n_seeds += 1;
        self.n_overspent += u64::from(outcome.overspent > 0);
        self.overspent_max = self.overspent_max.max(share(outcome.overspent));
        self.bound_max = self.bound_max.max(share(outcome.bound));
        self.used_sum += share(outcome.ledgers);
        self.n_broken += u64::from(outcome.broken_at_step.is_some());
        let is_equal = outcome.stored == outcome.ledgers && outcome.allocated == outcome.ledgers;
        self.n_unequal += u64::from(!is_equal);
        self.n_differing += u64::from(outcome.n_differing > 0);
        let is_bad = !outcome.holds() || outcome.n_differing > 0 || self.is_lossless(outcome);
        if is_bad && self.first_bad.is_none() {
            self.first_bad = Some((seed, *outcome));
        }
    }

    fn is_lossless(&self, outcome: &Outcome) -> bool {
        !self.loses_data && outcome.overspent > 0
    }

    /// Whether no run passed its bound, which without loss of data is nothing.
    pub fn is_good(&self) -> bool {
        self.first_bad.is_none()
    }

    /// Prints it, and the first run that was bad.
    pub fn print(&self) {
        let percent = |share: u64| format!("{}.{:02}%", share / 100, share % 100);
        println!(
            "{:<7} {:<28} {:>6} {:>10} {:>8} {:>8} {:>7} {:>8} {:>9} {:>7}",
            self.store,
            self.name,
            self.n_seeds,
            self.n_overspent,
            percent(self.overspent_max),
            percent(self.bound_max),
            self.n_broken,
            self.n_unequal,
            self.n_differing,
            percent(self.used_sum / self.n_seeds.max(1)),
        );
        if let Some((seed, outcome)) = &self.first_bad {
            println!("        seed {seed}: {outcome:?}");
        }
    }
}
