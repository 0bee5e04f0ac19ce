//! What a PromQL expression speaks of: its metrics and its labels.

use std::collections::BTreeSet;

/// Words that stand where a metric could.
const KEYWORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "inf", "nan"];

/// Words that are followed by labels in parentheses.
const GROUPINGS: &[&str] = &[
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// What an expression names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Metrics, and patterns of such (`__name__=~"…"`) with a `~` before them.
    pub metrics: BTreeSet<String>,
    /// Labels, in selectors and in groupings.
    pub labels: BTreeSet<String>,
}

/// One piece of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// Reads the names off an expression whose variables have been filled in.
pub fn names_in(expression: &str) -> Names {
    let tokens = tokens(expression);
    let mut names = Names::default();
    let mut rest = tokens.as_slice();
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        match token {
            Token::Sign('{') => rest = selector(after, &mut names),
            Token::Sign('[') => rest = behind(after, ']'),
            Token::Word(word) if GROUPINGS.contains(&word.as_str()) => {
                rest = grouping(after, &mut names);
            }
            Token::Word(word) if KEYWORDS.contains(&word.to_lowercase().as_str()) => {}
            Token::Word(word) => {
                let next = after.first();
                let is_aggregation = matches!(next, Some(Token::Word(word)) if word == "by");
                let is_number = word.starts_with(|letter: char| letter.is_ascii_digit());
                if next != Some(&Token::Sign('(')) && !is_aggregation && !is_number {
                    names.metrics.insert(word.clone());
                }
            }
            Token::Text(_) | Token::Sign(_) => {}
        }
    }
    names
}

/// Takes the labels of `{name="value", …}` whose brace is open; the rest behind it.
fn selector<'t>(tokens: &'t [Token], names: &mut Names) -> &'t [Token] {
    let mut rest = tokens;
    loop {
        match rest {
            [Token::Word(label), more @ ..] => {
                let value = more.iter().find_map(|token| match token {
                    Token::Text(text) => Some(text),
                    _ => None,
                });
                match (label.as_str(), value) {
                    ("__name__", Some(pattern)) => names.metrics.insert(format!("~{pattern}")),
                    _ => names.labels.insert(label.clone()),
                };
                rest = more;
            }
            [Token::Sign('}'), more @ ..] => return more,
            [_, more @ ..] => rest = more,
            [] => return rest,
        }
    }
}

/// Takes the labels of `(a, b)`, where such stand; the rest behind them.
fn grouping<'t>(tokens: &'t [Token], names: &mut Names) -> &'t [Token] {
    let [Token::Sign('('), labels @ ..] = tokens else {
        return tokens;
    };
    let words = labels
        .iter()
        .take_while(|token| **token != Token::Sign(')'));
    for word in words {
        if let Token::Word(label) = word {
            names.labels.insert(label.clone());
        }
    }
    behind(labels, ')')
}

fn behind(tokens: &[Token], sign: char) -> &[Token] {
    let at = tokens.iter().position(|token| *token == Token::Sign(sign));
    at.and_then(|at| tokens.get(at + 1..)).unwrap_or_default()
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            '"' | '\'' | '`' => {
                let mut text = String::new();
                while let Some(letter) = rest.next().filter(|letter| *letter != first) {
                    text.push(letter);
                    if letter == '\\' {
                        text.extend(rest.next());
                    }
                }
                tokens.push(Token::Text(text));
            }
            letter if is_of_word(letter) => {
                let mut word = String::from(letter);
                while let Some(letter) = rest.next_if(|letter| is_of_word(*letter)) {
                    word.push(letter);
                }
                tokens.push(Token::Word(word));
            }
            space if space.is_whitespace() => {}
            sign => tokens.push(Token::Sign(sign)),
        }
    }
    tokens
}

/// A dot, so that `0.5` is one word.
fn is_of_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || ['_', ':', '.'].contains(&letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_labels_are_told_from_all_else() {
        for (expression, metrics, labels) in [
            ("up", "up", ""),
            (
                "sum by (a, b) (rate(x_total{c=~\"y|z\"}[5m] offset 1d))",
                "x_total",
                "a b c",
            ),
            (
                "a:b:rate1h / on () group_left (d) (e > bool 1e6)",
                "a:b:rate1h e",
                "d",
            ),
            (
                "histogram_quantile(0.95, sum(rate(h_bucket[1h:5m])) by (le))",
                "h_bucket",
                "le",
            ),
            (
                "{__name__=~\"envoy_.*\", p='q}'} or vector(0)",
                "~envoy_.*",
                "p",
            ),
            (
                "avg_over_time(r{s=\"\\\"t\"}[7d:1h]) unless u and inf",
                "r u",
                "s",
            ),
            ("24 * tolmesh_x - 3600", "tolmesh_x", ""),
        ] {
            let names = names_in(expression);
            let words =
                |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
            let read = (words(&names.metrics), words(&names.labels));
            assert_eq!(
                read,
                (metrics.to_string(), labels.to_string()),
                "{expression}"
            );
        }
    }
}
