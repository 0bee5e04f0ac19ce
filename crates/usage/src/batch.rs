//! What the requests of a batch used, summed so that their prices can still be told.
//!
//! Providers charge a request by how long its own input is, so that a sum over requests of any
//! length has no price. Requests are therefore summed by model and by a class of lengths within
//! which no provider changes its prices, and each sum tells how many requests are in it.

use std::ops::RangeInclusive;

use crate::bucket::{Quantity, Unit, Usage};
use crate::scan::ExtraUsage;

/// The kind of a sum over requests of one class.
pub const KIND: &str = "batch_result";

/// The kind of a sum over requests of several, for which there was no room apart.
pub const MIXED_KIND: &str = "batch_results";

/// The last input, in tokens, of each class. Behind each a provider changes prices; that of 200,000
/// is a class of its own, since one charges more from there on and another beyond it
/// (`ctx` in the files of `pricing/`, whose tests compare).
const CLASS_ENDS: [u64; 9] = [
    32_000, 100_000, 128_000, 199_999, 200_000, 256_000, 272_000, 512_000, 524_288,
];

/// The class that an input of so many tokens is in: its shortest and its longest.
pub fn class_of(input_tokens: u64) -> RangeInclusive<u64> {
    let mut first = 0;
    for end in CLASS_ENDS {
        if input_tokens <= end {
            return first..=end;
        }
        first = end + 1;
    }
    first..=u64::MAX
}

/// The mean input of the requests of a sum, in tokens; `None` where their number is not known.
pub fn mean_input(sum: &Usage) -> Option<u64> {
    let n_requests = sum.unit(Unit::Requests)?.as_thousandths() / 1000;
    sum.input_total().unwrap_or(0).checked_div(n_requests)
}

/// Adds what one request used to its sum; says whether there was room, for as many sums in all.
pub(crate) fn add(
    sums: &mut Vec<ExtraUsage>,
    model: Option<String>,
    mut usage: Usage,
    n_max: usize,
) -> bool {
    let class = class_of(usage.input_total().unwrap_or(0));
    usage.set_unit(Unit::Requests, Quantity::whole(1));
    let fits = |sum: &&mut ExtraUsage| {
        let mean = mean_input(&sum.usage).unwrap_or(0);
        sum.kind == KIND && sum.model == model && class.contains(&mean)
    };
    if let Some(sum) = sums.iter_mut().find(fits) {
        sum.usage.add(&usage);
        return true;
    }
    if sums.len() < n_max {
        let kind = KIND.to_owned();
        sums.push(ExtraUsage { kind, model, usage });
        return true;
    }
    let is_of_batch = |sum: &ExtraUsage| matches!(sum.kind.as_str(), KIND | MIXED_KIND);
    let of_model = |sum: &&mut ExtraUsage| is_of_batch(sum) && sum.model == model;
    // The last one: one that is mixed already comes after those that are still whole.
    let Some(sum) = sums.iter_mut().rfind(of_model) else {
        return false;
    };
    MIXED_KIND.clone_into(&mut sum.kind);
    sum.usage.add(&usage);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::Bucket;

    fn tokens(n: u64) -> Usage {
        Usage::new().with(Bucket::Input, n)
    }

    #[test]
    fn classes_leave_no_length_out() {
        for (n, first, last) in [
            (0, 0, 32_000),
            (32_000, 0, 32_000),
            (32_001, 32_001, 100_000),
            (199_999, 128_001, 199_999),
            (200_000, 200_000, 200_000),
            (200_001, 200_001, 256_000),
            (524_289, 524_289, u64::MAX),
            (u64::MAX, 524_289, u64::MAX),
        ] {
            assert_eq!(class_of(n), first..=last, "{n}");
        }
    }

    #[test]
    fn requests_are_summed_by_model_and_class_and_none_is_lost() {
        let mut sums = Vec::new();
        let model = |name: &str| Some(name.to_owned());
        for (name, n) in [
            ("a", 10),
            ("a", 300_000),
            ("b", 10),
            ("a", 20),
            ("a", 310_000),
        ] {
            assert!(add(&mut sums, model(name), tokens(n), 3), "{name} {n}");
        }
        let told = |sums: &[ExtraUsage]| -> Vec<(String, u64, u64)> {
            let one = |sum: &ExtraUsage| {
                let n = sum.usage.unit(Unit::Requests).unwrap_or_default();
                let input = sum.usage.input_total().unwrap_or(0);
                (sum.kind.clone(), n.as_thousandths() / 1000, input)
            };
            sums.iter().map(one).collect()
        };
        let row = |kind: &str, n, input| (kind.to_owned(), n, input);
        let apart = [row(KIND, 2, 30), row(KIND, 2, 610_000), row(KIND, 1, 10)];
        assert_eq!(told(&sums), apart);
        assert!(add(&mut sums, model("a"), tokens(50_000), 3));
        assert!(add(&mut sums, model("a"), tokens(5), 3));
        let mixed = [
            row(KIND, 3, 35),
            row(MIXED_KIND, 3, 660_000),
            row(KIND, 1, 10),
        ];
        assert_eq!(told(&sums), mixed);
        assert!(!add(&mut sums, model("c"), tokens(1), 3));
    }
}
