//! The chief reasons of a change as a sentence for people.

use super::{Models, Mover};
use crate::report::causes::{Cause, Cell};
use crate::report::{share, show};

/// Parts below this share of all movement are left to the numbers, in tenths of a percent.
const SHARE_MIN: i128 = 100;
/// Reasons in a sentence; the third seldom matters.
const REASONS_MAX: usize = 3;

/// What happened, the largest part first.
pub fn reason(mover: &Mover, models: &Models, repeats: (u64, u64)) -> String {
    if mover.n_days == 0 {
        return String::new();
    }
    match (mover.before.requests, mover.after.requests) {
        (0, 0) => return String::new(),
        (0, n) => return format!("new: {}, none in the days before", show::requests(n)),
        (_, 0) => return "no requests any more".to_owned(),
        _ => {}
    }
    let mut parts: Vec<(Cause, i128)> = mover.causes.parts.iter().map(|(c, p)| (*c, *p)).collect();
    let movement: i128 = parts.iter().map(|(_, part)| part.abs()).sum();
    parts.retain(|(_, part)| {
        share::per_mille(part.abs(), movement).is_some_and(|share| share >= SHARE_MIN)
    });
    parts.sort_by_key(|(cause, part)| (-part.abs(), *cause));
    let told = parts.iter().take(REASONS_MAX).map(|(cause, part)| {
        let facts = Facts {
            mover,
            models,
            repeats,
        };
        format!(
            "{} ({})",
            facts.told(*cause, *part > 0),
            show::signed_usd(*part)
        )
    });
    told.collect::<Vec<_>>().join("; ")
}

struct Facts<'a> {
    mover: &'a Mover,
    models: &'a Models,
    repeats: (u64, u64),
}

impl Facts<'_> {
    fn told(&self, cause: Cause, is_more: bool) -> String {
        let word = |more: &'static str, less: &'static str| if is_more { more } else { less };
        match cause {
            Cause::Retries => {
                let (before, after) = self.repeats;
                let word = word("more retries", "fewer retries");
                let after = show::count(after);
                let before = show::tenths(before.into(), self.mover.n_days.into());
                format!("{word}: {after} of the requests repeat another one, {before} a day before")
            }
            Cause::Requests => {
                let word = word("more requests", "fewer requests");
                let after = show::count(self.mover.after.requests);
                let before = self.mover.before.requests;
                let before = show::tenths(before.into(), self.mover.n_days.into());
                format!("{word}: {after}, {before} a day before")
            }
            Cause::Models => self.models_told(),
            Cause::InputLength => {
                self.length_told(word("longer input", "shorter input"), Cell::input)
            }
            Cause::OutputLength => {
                self.length_told(word("longer output", "shorter output"), Cell::output)
            }
            Cause::Cache => self.cache_told(),
            Cause::OutputKinds => "other kinds of output".to_owned(),
            Cause::Price => word("prices or fees rose", "prices or fees fell").to_owned(),
        }
    }

    fn length_told(&self, word: &str, tokens: fn(&Cell) -> u128) -> String {
        let mean = |cell: &Cell| show::tenths(tokens(cell), u128::from(cell.requests));
        let (before, after) = (mean(&self.mover.before), mean(&self.mover.after));
        format!("{word}: {after} tokens a request, {before} before")
    }

    fn cache_told(&self) -> String {
        let rate = |cell: &Cell| {
            let part = |n: u128| i128::try_from(n).unwrap_or(i128::MAX);
            share::per_mille(part(cell.cached()), part(cell.input())).unwrap_or(0)
        };
        let (before, after) = (rate(&self.mover.before), rate(&self.mover.after));
        let word = match after.cmp(&before) {
            std::cmp::Ordering::Less => "cache hit rate fell",
            std::cmp::Ordering::Greater => "cache hit rate rose",
            std::cmp::Ordering::Equal => "input is cached otherwise",
        };
        let (before, after) = (show::percent(before), show::percent(after));
        format!("{word}: {after} of the input, {before} before")
    }

    /// The model whose share of the calls grew most.
    fn models_told(&self) -> String {
        let share_of =
            |part: u64, whole: u64| share::per_mille(part.into(), whole.into()).unwrap_or(0);
        let (before, after) = (self.mover.before.requests, self.mover.after.requests);
        let shares = self.models.iter().map(|(key, (was, is))| {
            let (was, is) = (share_of(was.requests, before), share_of(is.requests, after));
            (is - was, was, is, key)
        });
        let Some((gain, was, is, key)) = shares.max_by_key(|(gain, ..)| *gain) else {
            return "model changed".to_owned();
        };
        if gain <= 0 {
            return "calls moved among models".to_owned();
        }
        let names = [1, 2].map(|i| key.get(i).and_then(Option::as_deref));
        let name = show::key(&names.into_iter().flatten().collect::<Vec<_>>().join(" "));
        let (was, is) = (show::percent(was), show::percent(is));
        match name.is_empty() {
            true => "model changed".to_owned(),
            false => format!("model changed: {name} serves {is} of requests, {was} before"),
        }
    }
}
