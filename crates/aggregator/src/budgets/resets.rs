//! When tiers that are reached could be left again.
//!
//! A calendar's window ends, and all its tiers with it. A rolling one never does: each of its parts
//! stops counting at an instant of its own, so a tier holds at least until enough of them have,
//! whatever is spent meanwhile.

use tollmesh_wire::Timestamp;

use super::account::Account;
use super::state::State;

/// When the tiers of one account that are reached could be left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resets {
    /// When the last of them could.
    pub all: Timestamp,
    /// When each could, the lowest first, none of them later than the one before; empty where they
    /// are all left together.
    pub each: Vec<Timestamp>,
}

impl State {
    /// When the tiers up to that one could be left.
    pub fn resets(&self, account: &Account, tier: usize) -> Resets {
        if account.budget.cell_ms().is_none() {
            return Resets {
                all: Timestamp::from_unix_ms(account.cell.end),
                each: Vec::new(),
            };
        }
        let counting = self.counting(account);
        let floors = account.budget.tier_units.iter().take(tier + 1);
        // What is never left is the default instant, which is nobody's.
        let left = floors.map(|floor| left_at(&counting, *floor).unwrap_or_default());
        let each: Vec<Timestamp> = left.collect();
        Resets {
            all: each.first().copied().unwrap_or_default(),
            each,
        }
    }

    /// When a call of that many units would fit at the earliest, if everybody else stopped.
    pub fn fits_at(&self, account: &Account, units: u64) -> Timestamp {
        let budget = &account.budget;
        let end = Timestamp::from_unix_ms(budget.counts_until(account.cell));
        let room = budget.hard_units.checked_sub(units);
        match (budget.cell_ms(), room) {
            (Some(_), Some(room)) => {
                left_at(&self.counting(account), room.saturating_add(1)).unwrap_or(end)
            }
            // It never fits.
            _ => end,
        }
    }

    /// Until when which spend counts in the window that ends with the account's cell, what goes
    /// first first.
    fn counting(&self, account: &Account) -> Vec<(i64, u64)> {
        let counts_ms = account.budget.rolling_ms().unwrap_or(0);
        let earlier = self.earlier(account);
        let earlier = earlier.map(|part| (part.start + counts_ms, part.spent));
        let own = (account.budget.counts_until(account.cell), account.spent());
        let mut counting: Vec<(i64, u64)> = earlier.chain([own]).collect();
        counting.sort_unstable();
        counting
    }
}

/// When what counts falls below that, if nothing comes to it; `None` for never.
fn left_at(counting: &[(i64, u64)], floor: u64) -> Option<Timestamp> {
    let spends = counting.iter().map(|(_, spent)| *spent);
    let mut left = spends.fold(0, u64::saturating_add);
    let falls = |(_, spent): &&(i64, u64)| {
        left = left.saturating_sub(*spent);
        left < floor
    };
    let (until_ms, _) = counting.iter().find(falls)?;
    Some(Timestamp::from_unix_ms(*until_ms))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::policies::{Budget, Policies};
    use super::*;
    use crate::config::budgets::parse;

    const NOON_MS: i64 = 1_800_000_000_000;
    /// A part of a day's window.
    const QUARTER_MS: i64 = 900_000;
    const DAY_MS: i64 = 86_400_000;

    fn state(window: &str) -> (State, Arc<Budget>) {
        let text = format!(
            "[[budget]]\nname = \"b\"\nlimit = \"100 requests\"\nwindow = \"{window}\"\n\
             tiers = [{{ at = \"50%\", do = \"warn\" }}, {{ at = \"80%\", do = \"shed\" }}, \
             {{ at = \"100%\", do = \"deny\" }}]"
        );
        let policies = Policies::new(parse("budgets.toml", &text).unwrap());
        let budget = Arc::clone(&policies.all[0]);
        let mut state = State::default();
        state.policies = Arc::new(policies);
        (state, budget)
    }

    /// Has so many requests count from those many parts of the window ago.
    fn spend(state: &mut State, budget: &Arc<Budget>, n_parts_ago: i64, n: i128) -> Account {
        let cell = budget.cell_at(NOON_MS - n_parts_ago * QUARTER_MS).unwrap();
        let account = state.open(budget, Vec::new(), cell, 1);
        account.charge(None, n, 0);
        let present = budget.cell_at(NOON_MS).unwrap();
        let at = state.open(budget, Vec::new(), present, 1).at.clone();
        state.accounts.remove(&at).unwrap()
    }

    #[test]
    fn tiers_of_a_rolling_window_are_left_one_after_another() {
        let (mut state, budget) = state("rolling 24h");
        let mut present = spend(&mut state, &budget, 95, 10);
        for (n_parts_ago, n) in [(90, 25), (40, 30)] {
            spend(&mut state, &budget, n_parts_ago, n);
        }
        present.charge(None, 40, 0);
        let begin = budget.cell_at(NOON_MS).unwrap().start;
        let gone =
            |n_parts_ago: i64| Timestamp::from_unix_ms(begin - n_parts_ago * QUARTER_MS + DAY_MS);
        // 105: without the 10 of 95 parts ago it is 95, without the next 25 it is 70, then 40.
        let resets = state.resets(&present, 2);
        assert_eq!(resets.each, [gone(40), gone(90), gone(95)]);
        assert_eq!(resets.all, gone(40));
        assert_eq!(state.resets(&present, 0).each, [gone(40)]);
        for (units, fits) in [(5, gone(95)), (6, gone(90)), (60, gone(40)), (61, gone(0))] {
            assert_eq!(state.fits_at(&present, units), fits, "{units}");
        }
        assert_eq!(state.fits_at(&present, 101), gone(0), "it never fits");
    }

    #[test]
    fn a_calendars_window_ends_with_all_its_tiers() {
        let (mut state, budget) = state("day");
        let present = spend(&mut state, &budget, 0, 100);
        let end = Timestamp::from_unix_ms(budget.cell_at(NOON_MS).unwrap().end);
        let resets = state.resets(&present, 2);
        assert_eq!((resets.all, resets.each), (end, Vec::new()));
        assert_eq!(state.fits_at(&present, 1), end);
    }
}
