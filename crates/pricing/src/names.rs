//! Model names to models: exact names, dated snapshots, globs, in this order.

use std::collections::HashMap;
use std::fmt;

use tollmesh_usage::pattern::{self, SNAPSHOT_DATES};

use crate::condition::lower;

/// Stands for an optional snapshot date in a `match`.
pub(crate) const SNAP: &str = "{snap}";

/// What [`SNAP`] stands for.
fn dates() -> impl Iterator<Item = &'static str> {
    std::iter::once("").chain(SNAPSHOT_DATES)
}

/// A name pattern, lower case; it always covers the whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Is(u8),
    AnyOne,
    Digit,
    Any,
}

impl Glob {
    /// `*` is any text, `?` any byte, `#` a digit; anything else is itself in any case.
    pub fn new(text: &str) -> Glob {
        let text = text.to_lowercase();
        let parts = text.bytes().map(|byte| match byte {
            b'*' => Part::Any,
            b'?' => Part::AnyOne,
            b'#' => Part::Digit,
            other => Part::Is(other),
        });
        Glob {
            parts: parts.collect(),
        }
    }

    /// Whether the whole of `name` (lower case) fits.
    pub fn matches(&self, name: &str) -> bool {
        let is_any = |part: &Part| *part == Part::Any;
        pattern::fits(&self.parts, name.as_bytes(), is_any, |part, byte| {
            part.takes(byte)
        })
    }

    /// Whether some name fits both.
    pub fn meets(&self, other: &Glob) -> bool {
        let ahead = || self.parts.iter().zip(&other.parts);
        let behind = || self.parts.iter().rev().zip(other.parts.iter().rev());
        // Most pairs differ before the first or after the last star.
        if !may_meet(ahead()) || !may_meet(behind()) {
            return false;
        }
        let (a, b) = (&self.parts, &other.parts);
        let width = b.len() + 1;
        // `fits[i * width + j]`: the rests from i and j have a name in common.
        let mut fits = vec![false; (a.len() + 1) * width];
        for i in (0..=a.len()).rev() {
            for j in (0..=b.len()).rev() {
                let rest = |i: usize, j: usize| fits.get(i * width + j).copied() == Some(true);
                let fit = match (a.get(i), b.get(j)) {
                    (None, None) => true,
                    (Some(Part::Any), None) => rest(i + 1, j),
                    (None, Some(Part::Any)) => rest(i, j + 1),
                    (Some(Part::Any), _) | (_, Some(Part::Any)) => rest(i + 1, j) || rest(i, j + 1),
                    (Some(x), Some(y)) => x.overlaps(*y) && rest(i + 1, j + 1),
                    (None, Some(_)) | (Some(_), None) => false,
                };
                if let Some(slot) = fits.get_mut(i * width + j) {
                    *slot = fit;
                }
            }
        }
        fits.first() == Some(&true)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.parts.iter().map(|part| match part {
            Part::Is(own) => *own,
            Part::AnyOne => b'?',
            Part::Digit => b'#',
            Part::Any => b'*',
        });
        f.write_str(&String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()))
    }
}

fn may_meet<'p>(mut pairs: impl Iterator<Item = (&'p Part, &'p Part)>) -> bool {
    let decided = pairs.find(|(a, b)| **a == Part::Any || **b == Part::Any || !a.overlaps(**b));
    decided.is_none_or(|(a, b)| *a == Part::Any || *b == Part::Any)
}

impl Part {
    fn takes(self, byte: u8) -> bool {
        match self {
            Part::Is(own) => own == byte,
            Part::Digit => byte.is_ascii_digit(),
            Part::AnyOne | Part::Any => true,
        }
    }

    fn overlaps(self, other: Part) -> bool {
        match (self, other) {
            (Part::Is(a), b) => b.takes(a),
            (a, Part::Is(b)) => a.takes(b),
            _ => true,
        }
    }
}

/// One `match` entry of a price file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This very name, lower case.
    Exact(String),
    /// This name, with or without a snapshot date behind it.
    Snapshot(String),
    /// Any of these.
    Globs(Vec<Glob>),
}

impl Pattern {
    /// Reads a `match` entry.
    pub fn new(text: &str) -> Pattern {
        let text = text.to_lowercase();
        let is_glob = |s: &str| s.contains(['*', '?', '#']);
        if let Some(stem) = text.strip_suffix(SNAP)
            && !is_glob(stem)
            && !stem.contains(SNAP)
        {
            return Pattern::Snapshot(stem.to_owned());
        }
        if !is_glob(&text) && !text.contains(SNAP) {
            return Pattern::Exact(text);
        }
        let globs = match text.contains(SNAP) {
            true => dates()
                .map(|date| Glob::new(&text.replace(SNAP, date)))
                .collect(),
            false => vec![Glob::new(&text)],
        };
        Pattern::Globs(globs)
    }
}

/// The names and patterns of a `match` in lower case: a date at the end left out, elsewhere in each
/// of its forms.
pub(crate) fn undated(matches: &[String]) -> Vec<String> {
    let names = matches.iter().flat_map(|text| {
        let text = text.to_lowercase();
        match Pattern::new(&text) {
            Pattern::Exact(name) | Pattern::Snapshot(name) => vec![name],
            Pattern::Globs(globs) => globs.iter().map(Glob::to_string).collect(),
        }
    });
    names.collect()
}

/// Names to indices of models.
#[derive(Clone, Debug, Default)]
pub struct Names {
    exact: HashMap<String, usize>,
    snapshot: HashMap<String, usize>,
    globs: Vec<(Glob, usize)>,
}

impl Names {
    /// Adds a pattern of a model; gives the other model that already claims the same.
    pub fn add(&mut self, pattern: Pattern, model: usize) -> Option<usize> {
        let claimed = match pattern {
            Pattern::Exact(name) => {
                let undated = self.snapshot.get(&name).copied();
                self.exact.insert(name, model).or(undated)
            }
            Pattern::Snapshot(stem) => {
                let undated = self.exact.get(&stem).copied();
                let other = self.snapshot.insert(stem.clone(), model);
                let other = other.or(undated).filter(|other| *other != model);
                other.or_else(|| self.glob_over_snapshot(&stem, model))
            }
            Pattern::Globs(globs) => {
                let other = globs.iter().find_map(|g| self.claimed_glob(g, model));
                self.globs.extend(globs.into_iter().map(|g| (g, model)));
                other
            }
        };
        claimed.filter(|other| *other != model)
    }

    fn claimed_glob(&self, glob: &Glob, model: usize) -> Option<usize> {
        let by_glob = self
            .globs
            .iter()
            .find(|(g, m)| *m != model && g.meets(glob));
        let by_snapshot = || {
            let claims = |stem: &str| dated(stem).iter().any(|g| g.meets(glob));
            let mut others = self.snapshot.iter().filter(|(_, m)| **m != model);
            others.find(|(stem, _)| claims(stem)).map(|(_, m)| *m)
        };
        by_glob.map(|(_, m)| *m).or_else(by_snapshot)
    }

    fn glob_over_snapshot(&self, stem: &str, model: usize) -> Option<usize> {
        let dated = dated(stem);
        let mut others = self.globs.iter().filter(|(_, m)| *m != model);
        others
            .find(|(g, _)| dated.iter().any(|d| d.meets(g)))
            .map(|(_, m)| *m)
    }

    /// The model of that name, in any case.
    pub fn find(&self, name: &str) -> Option<usize> {
        let name = &*lower(name);
        self.exact
            .get(name)
            .or_else(|| self.snapshot.get(name))
            .or_else(|| self.snapshot.get(without_date(name)?))
            .copied()
            .or_else(|| {
                let glob = self.globs.iter().find(|(g, _)| g.matches(name));
                glob.map(|(_, model)| *model)
            })
    }
}

fn dated(stem: &str) -> Vec<Glob> {
    let glob = |date| Glob::new(&format!("{stem}{date}"));
    dates().map(glob).collect()
}

/// The name before its snapshot date, if it has one; the same forms as [`dates`].
pub(crate) fn without_date(name: &str) -> Option<&str> {
    let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
    if let Some((stem, version)) = name.rsplit_once('@') {
        let is_version = digits(version, 8) || matches!(version, "default" | "latest");
        return is_version.then_some(stem);
    }
    let (stem, last) = name.rsplit_once('-')?;
    if digits(last, 8) {
        return Some(stem);
    }
    let (stem, month) = stem.rsplit_once('-')?;
    let (stem, year) = stem.rsplit_once('-')?;
    (digits(last, 2) && digits(month, 2) && digits(year, 4)).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_cover_the_whole_name() {
        for (glob, name, want) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("*4o", "gpt-4o", true),
            ("*4o", "gpt-4o-mini", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("x-????", "x-2508", true),
            ("x-####", "x-late", false),
            ("*", "", true),
        ] {
            assert_eq!(Glob::new(glob).matches(name), want, "{glob} {name}");
        }
    }

    #[test]
    fn globs_meet_where_a_name_fits_both() {
        for (a, b, want) in [
            ("a*", "*b", true),
            ("a*", "b*", false),
            ("a?", "a", false),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("x-########", "x-####-##-##", false),
            ("a*c", "ab*", true),
            ("#", "x", false),
            ("*", "", true),
        ] {
            assert_eq!(Glob::new(a).meets(&Glob::new(b)), want, "{a} {b}");
            assert_eq!(Glob::new(b).meets(&Glob::new(a)), want, "{b} {a}");
        }
    }

    #[test]
    fn exact_beats_snapshot_beats_glob() {
        let mut names = Names::default();
        for (n, text) in ["gpt-4o{snap}", "gpt-4o-2024-05-13", "ft:gpt-4o{snap}:*"]
            .into_iter()
            .enumerate()
        {
            assert_eq!(names.add(Pattern::new(text), n), None);
        }
        for (name, want) in [
            ("GPT-4o", Some(0)),
            ("gpt-4o-2024-08-06", Some(0)),
            ("gpt-4o-20240806", Some(0)),
            ("gpt-4o@default", Some(0)),
            ("gpt-4o@20240806", Some(0)),
            ("gpt-4o@mine", None),
            ("gpt-4o-2024-05-13", Some(1)),
            ("ft:gpt-4o-2024-08-06:acme::abc", Some(2)),
            ("ft:gpt-4o-mini-2024-07-18:acme::abc", None),
            ("gpt-4o-mini", None),
            ("gpt-4o-2024", None),
        ] {
            assert_eq!(names.find(name), want, "{name}");
        }
    }

    #[test]
    fn two_models_may_not_claim_one_name() {
        let claimed = |a: &str, b: &str| {
            let mut names = Names::default();
            names.add(Pattern::new(a), 0);
            names.add(Pattern::new(b), 1)
        };
        assert_eq!(claimed("a", "A"), Some(0));
        assert_eq!(claimed("a{snap}", "a{snap}"), Some(0));
        assert_eq!(claimed("a*", "*b"), Some(0));
        assert_eq!(claimed("a{snap}", "a-20*"), Some(0));
        assert_eq!(claimed("a-20*", "a{snap}"), Some(0));
        assert_eq!(claimed("a{snap}", "a"), Some(0));
        assert_eq!(claimed("a", "a{snap}"), Some(0));
        assert_eq!(claimed("a{snap}", "a-20240101"), None);
        assert_eq!(claimed("a*", "b*"), None);
    }
}
