//! Changes to a text, shown as a unified diff.

use std::fmt::Write;

/// Lines of the text around a change.
const CONTEXT: usize = 3;

/// A change: lines of the text that go, and those that come in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The first line that goes, counted from 0; the number of lines, to add at the end.
    pub at: usize,
    /// How many go.
    pub removed: usize,
    /// What comes.
    pub added: Vec<String>,
}

/// The text after the edits, which are in the order of their lines and do not overlap.
pub fn apply(text: &str, edits: &[Edit]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for edit in edits {
        push_lines(&mut out, lines.get(at..edit.at).unwrap_or_default());
        push_lines(&mut out, &edit.added);
        at = edit.at + edit.removed;
    }
    push_lines(&mut out, lines.get(at..).unwrap_or_default());
    out
}

fn push_lines(out: &mut String, lines: &[impl AsRef<str>]) {
    for line in lines {
        out.push_str(line.as_ref());
        out.push('\n');
    }
}

/// The edits as `patch` and `git apply` read them.
pub fn unified(name: &str, text: &str, edits: &[Edit]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = format!("--- a/{name}\n+++ b/{name}\n");
    let mut shift = 0_isize;
    for hunk in hunks(edits) {
        shift = push_hunk(&mut out, &lines, hunk, shift);
    }
    out
}

/// Edits that stand so near that their surroundings meet are one hunk.
fn hunks(edits: &[Edit]) -> Vec<&[Edit]> {
    let apart = |a: &Edit, b: &Edit| a.at + a.removed + 2 * CONTEXT >= b.at;
    edits.chunk_by(apart).collect()
}

fn push_hunk(out: &mut String, lines: &[&str], hunk: &[Edit], shift: isize) -> isize {
    let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else {
        return shift;
    };
    let begin = first.at.saturating_sub(CONTEXT);
    let end = (last.at + last.removed + CONTEXT).min(lines.len());
    let added: usize = hunk.iter().map(|edit| edit.added.len()).sum();
    let removed: usize = hunk.iter().map(|edit| edit.removed).sum();
    let n_old = end - begin;
    let n_new = n_old + added - removed;
    let new_begin = begin.saturating_add_signed(shift);
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "@@ -{},{n_old} +{},{n_new} @@",
        begin + 1,
        new_begin + 1
    );
    let mut push = |sign: char, some: &[&str]| {
        for line in some {
            let _ = writeln!(out, "{sign}{line}");
        }
    };
    let mut at = begin;
    for edit in hunk {
        let gone = edit.at + edit.removed;
        push(' ', lines.get(at..edit.at).unwrap_or_default());
        push('-', lines.get(edit.at..gone).unwrap_or_default());
        let added: Vec<&str> = edit.added.iter().map(String::as_str).collect();
        push('+', &added);
        at = gone;
    }
    push(' ', lines.get(at..end).unwrap_or_default());
    shift + added.cast_signed() - removed.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(at: usize, removed: usize, added: &[&str]) -> Edit {
        Edit {
            at,
            removed,
            added: added.iter().map(|line| line.to_string()).collect(),
        }
    }

    #[test]
    fn hunks_are_counted_as_patch_counts_them() {
        let text: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let edits = [
            edit(1, 1, &["2a", "2b"]),
            edit(4, 1, &["5a"]),
            edit(20, 0, &["21"]),
        ];
        let wanted = "--- a/t\n+++ b/t\n@@ -1,8 +1,9 @@\n 1\n-2\n+2a\n+2b\n 3\n 4\n-5\n+5a\n 6\n 7\n 8\n\
                      @@ -18,3 +19,4 @@\n 18\n 19\n 20\n+21\n";
        assert_eq!(unified("t", &text, &edits), wanted);
        let after = apply(&text, &edits);
        assert!(after.starts_with("1\n2a\n2b\n3\n4\n5a\n6\n"));
        assert!(after.ends_with("20\n21\n"));
    }
}
