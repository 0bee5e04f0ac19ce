//! Adding up what the test programs of one `cargo test` say of themselves.

use std::fmt;

/// Sums over all test programs and documentation tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub n_passed: u64,
    /// Tests that failed.
    pub n_failed: u64,
    /// Tests that did not run, or that said they could not.
    pub n_skipped: u64,
}

impl Tally {
    /// Reads one line of output; only a program's closing line counts:
    /// `test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; …`.
    pub fn read(&mut self, line: &str) {
        if line.starts_with(SKIPPED) {
            self.n_skipped += 1;
        }
        let Some((_, counts)) = line.split_once("test result: ") else {
            return;
        };
        let mut words = counts
            .split([' ', ';', '.'])
            .filter(|word| !word.is_empty())
            .peekable();
        while let Some(word) = words.next() {
            let (Ok(count), Some(what)) = (word.parse::<u64>(), words.peek()) else {
                continue;
            };
            match *what {
                "passed" => self.n_passed += count,
                "failed" => self.n_failed += count,
                "ignored" => self.n_skipped += count,
                _ => {}
            }
        }
    }

    /// No failure, and at least one test: a run that tested nothing proves nothing.
    pub fn is_good(&self) -> bool {
        self.n_failed == 0 && self.n_passed > 0
    }
}

/// How a street test begins the line in which it says that it could not run, and why.
const SKIPPED: &str = "SKIPPED ";

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.n_skipped > 0 {
            writeln!(f, "{} skipped", self.n_skipped)?;
        }
        write!(f, "{} passed, {} failed", self.n_passed, self.n_failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_summed() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests\n",
            "test a ... ok\n",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; \
             finished in 0.03s\n",
            "test result: \u{1b}[31mFAILED\u{1b}(B\u{1b}[m. 4 passed; 2 failed; 0 ignored; \
             0 measured; 0 filtered out; finished in 1.50s\n",
            "SKIPPED budgets_over_redis: no redis-server in PATH\n",
            "9 passed; 9 failed\n",
        ] {
            tally.read(line);
        }
        assert_eq!(
            tally,
            Tally {
                n_passed: 16,
                n_failed: 2,
                n_skipped: 2
            }
        );
        assert_eq!(tally.to_string(), "2 skipped\n16 passed, 2 failed");
        assert!(!tally.is_good());
    }

    #[test]
    fn nothing_tested_is_not_good() {
        assert!(!Tally::default().is_good());
        let mut tally = Tally::default();
        tally.read("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        assert!(tally.is_good());
        assert_eq!(tally.to_string(), "1 passed, 0 failed");
    }
}
