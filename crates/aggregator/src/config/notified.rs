//! Whether everybody is known whom budgets and guards are to notify.

use super::budgets::Limits;
use super::section::{nearest, one_of};
use crate::alerts::Receivers;

/// What is wrong with the names in each `notify` of that file, a message for each that is unknown.
pub fn unknown(file: &str, limits: &Limits, receivers: &Receivers) -> Vec<String> {
    let mut mistakes = Vec::new();
    for policy in &limits.policies {
        for (n, tier) in policy.tiers.iter().enumerate() {
            let place = format!("{file}: budget {:?}: tiers[{n}].notify", policy.name);
            mistakes.extend(unknown_of(&place, &tier.notify, receivers));
        }
    }
    for guard in &limits.guards {
        let place = format!("{file}: guard {:?}: notify", guard.name);
        mistakes.extend(unknown_of(&place, &guard.notify, receivers));
    }
    mistakes
}

fn unknown_of(place: &str, notify: &[String], receivers: &Receivers) -> Vec<String> {
    let unknown = notify.iter().filter(|name| !receivers.knows(name));
    let told = unknown.map(|name| {
        let known = receivers.names();
        let near = nearest(name, &known).map(|near| format!("did you mean {near:?}? "));
        format!(
            "{place}: unknown receiver {name:?}; {}expected {}; receivers are the sections \
             [alerts.NAME] of tollmesh.toml",
            near.unwrap_or_default(),
            one_of(&known)
        )
    });
    told.collect()
}
