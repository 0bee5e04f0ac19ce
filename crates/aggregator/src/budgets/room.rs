//! Which keys the table names where there is not room for all.

use std::collections::BTreeMap;

/// What a key above a tier means to calls; the first has the first claim to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// A budget without keys of its own: one for all its calls.
    Whole,
    /// Calls are denied.
    Denies,
    /// Calls are changed, slowed or shed.
    Alters,
    /// Calls pass, and somebody hears of it.
    Tells,
}

/// As many of these as there is room for, with the place of their budget, and how many are left out.
/// Heavier ones come first. Among equals each budget has its even share: one that is flooded with
/// made-up keys leaves the others their own.
pub fn shared<T>(
    keys: impl Iterator<Item = (usize, Weight, T)>,
    room: usize,
) -> (Vec<(usize, T)>, u64) {
    let mut by_weight: BTreeMap<Weight, BTreeMap<usize, Vec<T>>> = BTreeMap::new();
    for (place, weight, key) in keys {
        let of_weight = by_weight.entry(weight).or_default();
        of_weight.entry(place).or_default().push(key);
    }
    let (mut told, mut n_untold) = (Vec::new(), 0);
    for of_weight in by_weight.into_values() {
        let mut budgets: Vec<(usize, Vec<T>)> = of_weight.into_iter().collect();
        // Those that need less than their share leave the rest of it to those that come after.
        budgets.sort_by_key(|(_, keys)| keys.len());
        let n_budgets = budgets.len();
        for (n, (place, mut keys)) in budgets.into_iter().enumerate() {
            let share = (room - told.len()) / (n_budgets - n);
            n_untold += keys.len().saturating_sub(share) as u64;
            keys.truncate(share);
            told.extend(keys.into_iter().map(|key| (place, key)));
        }
    }
    (told, n_untold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(keys: &[(usize, Weight, usize)], room: usize) -> (Vec<usize>, u64) {
        let each = keys.iter().flat_map(|(place, weight, n)| {
            let key = (*place, *weight, ());
            std::iter::repeat_n(key, *n)
        });
        let (told, n_untold) = shared(each, room);
        let n_of = |place| told.iter().filter(|(of, ())| *of == place).count();
        ((0..4).map(n_of).collect(), n_untold)
    }

    #[test]
    fn heavier_keys_come_first_and_budgets_share_evenly() {
        use Weight::{Alters, Denies, Tells, Whole};
        let all = [
            (0, Tells, 50),
            (1, Denies, 3),
            (2, Alters, 20),
            (3, Whole, 1),
        ];
        assert_eq!(counts(&all, 100), (vec![50, 3, 20, 1], 0));
        assert_eq!(counts(&all, 30), (vec![6, 3, 20, 1], 44));
        assert_eq!(counts(&all, 4), (vec![0, 3, 0, 1], 70));
        let equals = [(0, Denies, 500), (1, Denies, 2), (2, Denies, 90)];
        assert_eq!(counts(&equals, 100), (vec![49, 2, 49, 0], 492));
        assert_eq!(counts(&equals, 0), (vec![0; 4], 592));
        assert_eq!(counts(&[], 10), (vec![0; 4], 0));
    }
}
