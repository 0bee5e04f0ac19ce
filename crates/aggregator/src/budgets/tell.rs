//! Tiers that were reached, handed to whoever tells people.

use std::sync::Arc;

use rust_decimal::Decimal;
use tollmesh_budget::WindowSpan;

use super::policies::{Budget, Span};
use super::show;
use super::state::State;
use super::{Budgets, Shared};
use crate::alerts::Alerts;
use crate::clock;

/// How far a key had come when it reached a tier.
struct Reached {
    budget: Arc<Budget>,
    key: Vec<String>,
    window: WindowSpan,
    spent: Decimal,
    projected: Option<Decimal>,
}

impl Budgets {
    /// Has these told of tiers from now on. To be called once, before budgets are in force.
    pub fn alert(&self, alerts: Alerts) {
        self.0.guards.alert(alerts.clone());
        // Set once: nobody else begins.
        let _ = self.0.alerts.set(alerts);
    }
}

impl Shared {
    /// Tells of the tiers that were reached since it was last called.
    pub(super) fn tell_reached(&self) {
        let reached = {
            let mut state = self.state();
            if state.reached.is_empty() {
                return;
            }
            reached(&mut state, clock::now().as_unix_ms())
        };
        let Some(alerts) = self.alerts.get() else {
            return;
        };
        for reached in reached {
            let Reached {
                budget,
                key,
                window,
                spent,
                projected,
            } = reached;
            alerts.spent(&budget.policy, &key, spent, window, projected);
        }
    }
}

/// What is to be told, of windows that are not over.
fn reached(state: &mut State, unix_ms: i64) -> Vec<Reached> {
    let places = std::mem::take(&mut state.reached);
    let accounts = places.iter().filter_map(|at| state.accounts.get(at));
    let present = accounts.filter(|account| account.cell.holds(unix_ms));
    let reached = present.filter_map(|account| {
        let budget = Arc::clone(&account.budget);
        let window = budget.window_at(account.cell.start)?;
        let units = state.spent(account);
        Some(Reached {
            key: account.key.clone(),
            window: instants(window)?,
            spent: budget.amount_of(units),
            projected: show::projected(&budget, window, units, unix_ms),
            budget,
        })
    });
    reached.collect()
}

fn instants(span: Span) -> Option<WindowSpan> {
    Some(WindowSpan {
        start: jiff::Timestamp::from_millisecond(span.start).ok()?,
        end: jiff::Timestamp::from_millisecond(span.end).ok()?,
    })
}
