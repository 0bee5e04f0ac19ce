//! Why a cost changed, in parts whose sum is the change.
//!
//! The former cost is turned into the new one step by step, one fact at a time: first as many
//! calls as now, then spread over the models as now, then with as many tokens as now, and so on. A
//! part is what one step changed, so that the sum of all parts is the difference, to the
//! pico-dollar; what rounding there is moves between neighbours.

use std::collections::BTreeMap;

use tollmesh_usage::Bucket;

use super::share;

/// Number of buckets.
const N: usize = Bucket::ALL.len();

/// A reason for which cost changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Calls that repeat one of the same hour.
    Retries,
    /// All other calls.
    Requests,
    /// Which models, and of which provider and service tier, the calls went to.
    Models,
    /// Tokens a call sends, cached ones included.
    InputLength,
    /// Tokens a call gets, reasoning included.
    OutputLength,
    /// How much of the input came from a cache, was written to one, or is sound or pictures.
    Cache,
    /// How much of the output is text, sound or pictures.
    OutputKinds,
    /// What tokens cost, and fees beside them.
    Price,
}

impl Cause {
    /// Every cause, in the order in which its step is taken.
    pub const ALL: [Cause; 8] = [
        Cause::Retries,
        Cause::Requests,
        Cause::Models,
        Cause::InputLength,
        Cause::OutputLength,
        Cause::Cache,
        Cause::OutputKinds,
        Cause::Price,
    ];

    /// The name in answers; with `_usd` after it, a column.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Retries => "retries",
            Cause::Requests => "requests",
            Cause::Models => "models",
            Cause::InputLength => "input_length",
            Cause::OutputLength => "output_length",
            Cause::Cache => "cache",
            Cause::OutputKinds => "output_kinds",
            Cause::Price => "price",
        }
    }
}

/// Sums of one model's calls within a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Calls.
    pub requests: u64,
    /// Their cost, in pico-dollars.
    pub cost: i128,
    /// Their tokens, in [`Bucket::ALL`]'s order.
    pub tokens: [u128; N],
}

/// One model's calls before and after, and what its tokens cost in relation to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The sums of all days before.
    pub before: Cell,
    /// The sums of the day.
    pub after: Cell,
    /// Price of a token of each bucket; only their proportions matter.
    pub weights: [u64; N],
}

/// What changed within a group of calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Days that `before` sums over; at least one.
    pub n_days: u32,
    /// Repeated calls before, all days together, and on the day.
    pub repeats: (u64, u64),
    /// One entry a model.
    pub models: Vec<Change>,
}

/// The parts of a change, in pico-dollars a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    /// The mean of the days before.
    pub before: i128,
    /// The day.
    pub after: i128,
    /// What each cause added, or took where negative.
    pub parts: BTreeMap<Cause, i128>,
}

impl Changes {
    /// Splits the change into its causes.
    pub fn causes(&self) -> Causes {
        let n_days = u128::from(self.n_days.max(1));
        let states = self.states(n_days);
        let daily = states.map(|state| share::of(state, 1, n_days));
        let steps = daily.windows(2).map(|step| step[1] - step[0]);
        Causes {
            before: daily[0],
            after: daily[Cause::ALL.len()],
            parts: Cause::ALL.into_iter().zip(steps).collect(),
        }
    }

    /// The cost of `n_days` such days before the first step and after each.
    fn states(&self, n_days: u128) -> [i128; Cause::ALL.len() + 1] {
        let sum = |cost: &dyn Fn(&Change) -> i128| -> i128 { self.models.iter().map(cost).sum() };
        let count = |side: &dyn Fn(&Change) -> Cell| -> u128 {
            self.models
                .iter()
                .map(|m| u128::from(side(m).requests))
                .sum()
        };
        let former = sum(&|m| m.before.cost);
        let latter = sum(&|m| scaled(m.after.cost, n_days));
        let (n_before, n_after) = (count(&|m| m.before), count(&|m| m.after));
        if n_before == 0 || n_after == 0 {
            // All came, or all went: there is nothing to compare calls with.
            let mut states = [latter; Cause::ALL.len() + 1];
            states[0] = former;
            states[1] = former;
            return states;
        }
        let (repeats_before, repeats_after) = self.repeats;
        let repeats_after = u128::from(repeats_after) * n_days;
        let with_repeats = (n_before + repeats_after).saturating_sub(repeats_before.into());
        [
            former,
            share::of(former, with_repeats, n_before),
            share::of(former, n_after * n_days, n_before),
            sum(&|m| m.spread(n_days)),
            sum(&|m| m.step(n_days, |split| split.input_scaled())),
            sum(&|m| m.step(n_days, |split| split.both_scaled())),
            sum(&|m| m.step(n_days, |split| split.input_at_rates())),
            sum(&|m| m.step(n_days, |split| split.both_at_rates())),
            latter,
        ]
    }
}

impl Change {
    /// Its calls as now, each at its former mean cost. A model that is new costs what it costs.
    fn spread(&self, n_days: u128) -> i128 {
        match (self.before.requests, self.after.requests) {
            (0, _) => scaled(self.after.cost, n_days),
            (before, after) => {
                share::of(self.before.cost, u128::from(after) * n_days, before.into())
            }
        }
    }

    fn step(&self, n_days: u128, cost: fn(&Split<'_>) -> i128) -> i128 {
        if self.before.requests == 0 || self.after.requests == 0 {
            return self.spread(n_days);
        }
        cost(&Split::of(self, n_days))
    }
}

/// The former cost of a model's calls, split by what it was for.
struct Split<'a> {
    change: &'a Change,
    n_days: u128,
    weights: [u64; N],
    input: i128,
    output: i128,
    /// Not for tokens.
    rest: i128,
}

impl Split<'_> {
    fn of(change: &Change, n_days: u128) -> Split<'_> {
        let Change { before, .. } = change;
        let weighed = |weights: &[u64; N]| weigh(&before.tokens, weights, |_| true);
        // Where nobody knows rates, or only those of other tokens, all count alike.
        let weights = match weighed(&change.weights) {
            0 => [1; N],
            _ => change.weights,
        };
        let all = weighed(&weights);
        let input = share::of(before.cost, weigh(&before.tokens, &weights, is_input), all);
        let output = if all == 0 { 0 } else { before.cost - input };
        Split {
            change,
            n_days,
            weights,
            input,
            output,
            rest: before.cost - input - output,
        }
    }

    fn input_scaled(&self) -> i128 {
        self.by_length(self.input, is_input) + self.by_calls(self.output) + self.by_calls(self.rest)
    }

    fn both_scaled(&self) -> i128 {
        self.by_length(self.input, is_input)
            + self.by_length(self.output, is_output)
            + self.by_calls(self.rest)
    }

    fn input_at_rates(&self) -> i128 {
        self.at_rates(is_input) + self.by_length(self.output, is_output) + self.by_calls(self.rest)
    }

    fn both_at_rates(&self) -> i128 {
        self.at_rates(is_input) + self.at_rates(is_output) + self.by_calls(self.rest)
    }

    /// That cost for as many calls as now.
    fn by_calls(&self, cost: i128) -> i128 {
        let Change { before, after, .. } = self.change;
        share::of(
            cost,
            u128::from(after.requests) * self.n_days,
            before.requests.into(),
        )
    }

    /// That cost for as many tokens as now, of the same kinds in the same proportions.
    fn by_length(&self, cost: i128, is_meant: fn(Bucket) -> bool) -> i128 {
        let Change { before, after, .. } = self.change;
        let count = |cell: &Cell| weigh(&cell.tokens, &[1; N], is_meant);
        match count(before) {
            0 => self.by_calls(cost),
            n => share::of(cost, count(after) * self.n_days, n),
        }
    }

    /// The present tokens at the former rates.
    fn at_rates(&self, is_meant: fn(Bucket) -> bool) -> i128 {
        let Change { before, after, .. } = self.change;
        let all = weigh(&before.tokens, &self.weights, |_| true);
        let now = weigh(&after.tokens, &self.weights, is_meant);
        share::of(before.cost, now * self.n_days, all)
    }
}

fn weigh(tokens: &[u128; N], weights: &[u64; N], is_meant: fn(Bucket) -> bool) -> u128 {
    let each = Bucket::ALL.into_iter().zip(tokens.iter().zip(weights));
    each.filter(|(bucket, _)| is_meant(*bucket))
        .map(|(_, (n, weight))| n.saturating_mul(u128::from(*weight)))
        .sum()
}

fn scaled(cost: i128, n_days: u128) -> i128 {
    cost.saturating_mul(i128::try_from(n_days).unwrap_or(1))
}

/// Whether tokens of that bucket were sent, and not answered.
pub fn is_input(bucket: Bucket) -> bool {
    !is_output(bucket)
}

fn is_output(bucket: Bucket) -> bool {
    matches!(
        bucket,
        Bucket::Output | Bucket::Reasoning | Bucket::AudioOutput | Bucket::ImageOutput
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Input at 1, cache reads at a tenth, output at 4 dollars for a million tokens.
    const WEIGHTS: [u64; N] = [10, 1, 12, 20, 0, 0, 0, 40, 40, 0, 0];

    fn cell(requests: u64, input: u128, cache_read: u128, output: u128) -> Cell {
        let mut tokens = [0; N];
        (tokens[0], tokens[1], tokens[7]) = (input, cache_read, output);
        let pico = input * 1_000_000 + cache_read * 100_000 + output * 4_000_000;
        Cell {
            requests,
            cost: i128::try_from(pico).unwrap(),
            tokens,
        }
    }

    fn change(before: Cell, after: Cell) -> Change {
        Change {
            before,
            after,
            weights: WEIGHTS,
        }
    }

    fn parts(n_days: u32, repeats: (u64, u64), models: &[Change]) -> Vec<(Cause, i128)> {
        let models = models.to_vec();
        let causes = Changes {
            n_days,
            repeats,
            models,
        }
        .causes();
        let sum: i128 = causes.parts.values().sum();
        assert_eq!(sum, causes.after - causes.before);
        let parts = causes.parts.into_iter();
        parts.filter(|(_, usd)| *usd != 0).collect()
    }

    #[test]
    fn each_cause_alone_is_the_whole_change() {
        let base = cell(100, 80_000, 20_000, 10_000);
        let day = |after| [change(base, after)];
        let dearer = Cell {
            cost: base.cost * 2,
            ..base
        };
        let none = (0, 0);
        for (name, repeats, models, cause, change) in [
            (
                "twice the calls",
                none,
                day(cell(200, 160_000, 40_000, 20_000)),
                Cause::Requests,
                base.cost,
            ),
            (
                "twice the calls, all of them repeated",
                (0, 100),
                day(cell(200, 160_000, 40_000, 20_000)),
                Cause::Retries,
                base.cost,
            ),
            (
                "twice the input, cached alike",
                none,
                day(cell(100, 160_000, 40_000, 10_000)),
                Cause::InputLength,
                82_000_000_000,
            ),
            (
                "twice the output",
                none,
                day(cell(100, 80_000, 20_000, 20_000)),
                Cause::OutputLength,
                40_000_000_000,
            ),
            (
                "nothing cached any more",
                none,
                day(cell(100, 100_000, 0, 10_000)),
                Cause::Cache,
                18_000_000_000,
            ),
            (
                "twice the price",
                none,
                day(dearer),
                Cause::Price,
                base.cost,
            ),
        ] {
            assert_eq!(parts(1, repeats, &models), [(cause, change)], "{name}");
        }
        let elsewhere = [
            change(base, cell(50, 40_000, 10_000, 5_000)),
            change(Cell::default(), cell(50, 400_000, 100_000, 50_000)),
        ];
        let moved = parts(1, none, &elsewhere);
        let dear = 50 * (400_000 * 1_000_000 + 100_000 * 100_000 + 50_000 * 4_000_000) / 50;
        assert_eq!(moved, [(Cause::Models, dear - base.cost / 2)]);
        let came = parts(1, none, &[change(Cell::default(), base)]);
        assert_eq!(came, [(Cause::Requests, base.cost)]);
        let went = parts(1, none, &[change(base, Cell::default())]);
        assert_eq!(went, [(Cause::Requests, -base.cost)]);
    }

    #[test]
    fn several_days_before_are_their_mean() {
        let week = cell(700, 560_000, 140_000, 70_000);
        let day = cell(100, 80_000, 20_000, 10_000);
        assert_eq!(parts(7, (0, 0), &[change(week, day)]), []);
        let causes = Changes {
            n_days: 7,
            repeats: (0, 0),
            models: vec![change(week, cell(200, 160_000, 40_000, 20_000))],
        };
        assert_eq!(causes.causes().before, day.cost);
        assert_eq!(causes.causes().after, 2 * day.cost);
    }

    fn any_cell() -> impl Strategy<Value = Cell> {
        let tokens = proptest::array::uniform11(0_u128..1 << 40);
        let some = (1_u64..1 << 30, 0_i128..1 << 62, tokens);
        let some = some.prop_map(|(requests, cost, tokens)| Cell {
            requests,
            cost,
            tokens,
        });
        prop_oneof![some, Just(Cell::default())]
    }

    proptest! {
        #[test]
        fn the_parts_are_the_difference(
            models in proptest::collection::vec(
                (any_cell(), any_cell(), proptest::array::uniform11(0_u64..1 << 40)),
                0..5,
            ),
            n_days in 1_u32..8,
            repeats: (u32, u32),
        ) {
            let changes = Changes {
                n_days,
                repeats: (repeats.0.into(), repeats.1.into()),
                models: models
                    .into_iter()
                    .map(|(before, after, weights)| Change { before, after, weights })
                    .collect(),
            };
            let causes = changes.causes();
            let after: i128 = changes.models.iter().map(|m| m.after.cost).sum();
            prop_assert_eq!(causes.after, after);
            let parts: i128 = causes.parts.values().sum();
            prop_assert_eq!(parts, causes.after - causes.before);
        }
    }
}
