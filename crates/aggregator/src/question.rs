//! Questions to the ledger as people write them, in a URL or on the command line.

use std::time::Duration;

use tollmesh_wire::Timestamp;

use crate::ledger::query::{
    Column, ComparisonQuery, Dimension, Filter, GROUPS_MAX, OutcomesQuery, Patience, RequestsQuery,
    Sort, Span, SpendQuery, Unit, UnitSort, UnitsQuery,
};
use crate::rows;

/// Dimensions in one question; more make rows that nobody reads.
const DIMENSIONS_MAX: usize = 8;
/// Conditions in one question.
const FILTERS_MAX: usize = 16;
/// The longest that rows may be looked at, where it is said, in milliseconds. Who has more time than
/// that leaves it out.
const WITHIN_MS_MAX: u64 = 60_000;
/// Tags that hold a session's id, where nobody says which; a call's first counts.
const SESSION_TAGS: [&str; 3] = ["session_id", "session", "conversation_id"];
/// Rows on a page, where nobody says.
pub const LIMIT_DEFAULT: usize = 50;
/// Rows on a page at most, as the ledger has it; a cursor leads to the next.
const LIMIT_MAX: usize = 1_000;
/// Rows of sums in one answer, where nobody says: more than a person reads, in 5 MB. What is beyond is
/// summed up, and `limit` has it told apart.
pub const GROUPS_DEFAULT: usize = 10_000;

/// A question that cannot be asked: which part, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {what}")]
pub struct BadQuestion {
    /// The parameter's name.
    pub part: &'static str,
    /// What is wrong, and the remedy.
    pub what: String,
}

/// The parts of a question, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Dimensions, separated by commas.
    pub by: Vec<String>,
    /// An instant or an age.
    pub from: Option<String>,
    /// An instant or an age.
    pub to: Option<String>,
    /// Conditions, each as `name:value`.
    pub filters: Vec<String>,
    /// A duration.
    pub interval: Option<String>,
    /// An order.
    pub sort: Option<String>,
    /// A number of rows.
    pub limit: Option<String>,
    /// Where the page begins.
    pub cursor: Option<String>,
    /// Whether nothing is to be written, `true` or `false`.
    pub dry_run: Option<String>,
    /// Another period to compare with.
    pub compare: Option<String>,
    /// Tags that hold a session's id, separated by commas.
    pub tag: Option<String>,
    /// How long rows may be looked at.
    pub within: Option<String>,
}

// === impl Parts ===

impl Parts {
    /// Takes the parameters of a URL; others than `allowed` are refused.
    pub fn from_pairs(
        pairs: Vec<(String, String)>,
        allowed: &'static [&'static str],
    ) -> Result<Parts, BadQuestion> {
        each_once(&pairs, &["by", "where"])?;
        let mut parts = Parts::default();
        for (name, value) in pairs {
            if !allowed.contains(&name.as_str()) {
                let what = format!(
                    "unknown parameter {name:?}; expected {}",
                    allowed.join(", ")
                );
                return Err(bad("query", what));
            }
            match name.as_str() {
                "by" => parts.by.push(value),
                "where" => parts.filters.push(value),
                "from" => parts.from = Some(value),
                "to" => parts.to = Some(value),
                "interval" => parts.interval = Some(value),
                "sort" => parts.sort = Some(value),
                "limit" => parts.limit = Some(value),
                "dry_run" => parts.dry_run = Some(value),
                "compare" => parts.compare = Some(value),
                "tag" => parts.tag = Some(value),
                "within" => parts.within = Some(value),
                _ => parts.cursor = Some(value),
            }
        }
        Ok(parts)
    }

    /// The question for sums.
    pub fn spend(&self, now: Timestamp) -> Result<SpendQuery, BadQuestion> {
        Ok(SpendQuery {
            by: self.dimensions()?,
            interval_ms: self.interval_ms()?,
            span: self.span(now)?,
            filters: self.filters()?,
        })
    }

    /// The question for single calls.
    pub fn requests(&self, now: Timestamp) -> Result<RequestsQuery, BadQuestion> {
        Ok(RequestsQuery {
            span: self.span(now)?,
            filters: self.filters()?,
            sort: self.sort()?,
            limit: self.limit()?,
            cursor: self.cursor.clone(),
        })
    }

    /// The question for the difference to another period.
    pub fn comparison(&self, now: Timestamp) -> Result<ComparisonQuery, BadQuestion> {
        let text = self.compare.as_deref().unwrap_or("previous");
        if self.interval.is_some() {
            let what = "cannot be had together with compare; leave one of them out";
            return Err(bad("interval", what.to_owned()));
        }
        let after = self.span(now)?;
        let before = match text.split_once('/') {
            Some((from, to)) => {
                let (from, to) = (instant("compare", from, now)?, instant("compare", to, now)?);
                if from >= to {
                    return Err(bad("compare", format!("{to} is not after {from}")));
                }
                Span {
                    from: Some(from),
                    to: Some(to),
                }
            }
            None if text == "previous" => self.previous(after, now)?,
            None => {
                let what = format!("{text:?}; expected previous or FROM/TO");
                return Err(bad("compare", what));
            }
        };
        Ok(ComparisonQuery {
            by: self.dimensions()?,
            filters: self.filters()?,
            before,
            after,
        })
    }

    /// The period of the same length that ends where this one begins.
    fn previous(&self, span: Span, now: Timestamp) -> Result<Span, BadQuestion> {
        let Some(from) = span.from else {
            let what = "previous needs from, such as from=7d, or write compare=FROM/TO";
            return Err(bad("compare", what.to_owned()));
        };
        let to = span.to.unwrap_or(now);
        let length_ms = to.as_unix_ms().saturating_sub(from.as_unix_ms()).max(1);
        Ok(Span {
            from: Some(Timestamp::from_unix_ms(
                from.as_unix_ms().saturating_sub(length_ms),
            )),
            to: Some(from),
        })
    }

    /// The question for what became of calls.
    pub fn outcomes(&self, now: Timestamp) -> Result<OutcomesQuery, BadQuestion> {
        let by = self.dimensions()?;
        for name in rows::OUTCOME_COLUMNS {
            if by.iter().any(|dimension| dimension.name() == *name) {
                let what = format!("{name:?} is in the answer already; group by a tag or a column");
                return Err(bad("by", what));
            }
        }
        Ok(OutcomesQuery {
            by,
            span: self.span(now)?,
            filters: self.filters()?,
        })
    }

    /// The question for traces.
    pub fn traces(&self, now: Timestamp) -> Result<UnitsQuery, BadQuestion> {
        self.units(now, Unit::Trace)
    }

    /// The question for sessions.
    pub fn sessions(&self, now: Timestamp) -> Result<UnitsQuery, BadQuestion> {
        let tags: Vec<String> = match &self.tag {
            None => SESSION_TAGS.map(str::to_owned).to_vec(),
            Some(tags) => {
                let tags = tags.split(',').map(str::trim);
                let tags = tags.filter(|tag| !tag.is_empty());
                tags.map(str::to_owned).collect()
            }
        };
        if tags.is_empty() || tags.len() > DIMENSIONS_MAX {
            let what = format!("expected the names of 1 to {DIMENSIONS_MAX} tags");
            return Err(bad("tag", what));
        }
        self.units(now, Unit::Tags(tags))
    }

    fn units(&self, now: Timestamp, unit: Unit) -> Result<UnitsQuery, BadQuestion> {
        Ok(UnitsQuery {
            unit,
            span: self.span(now)?,
            filters: self.filters()?,
            sort: one_of_orders(
                &self.sort,
                UnitSort::parse,
                &UnitSort::ALL.map(UnitSort::name),
            )?,
            limit: self.limit()?,
            cursor: self.cursor.clone(),
        })
    }

    /// Which calls are to be priced anew. From when on has to be said: nobody rewrites a whole
    /// ledger by leaving something out.
    pub fn repricing(&self, now: Timestamp) -> Result<(Span, Vec<Filter>), BadQuestion> {
        if self.from.is_none() {
            let what = "missing; expected such as 2026-11-22T04:00:00Z, 2026-11-22 or an age such \
                        as 24h";
            return Err(bad("from", what.to_owned()));
        }
        Ok((self.span(now)?, self.filters()?))
    }

    /// Whether nothing is to be written.
    pub fn is_dry_run(&self) -> Result<bool, BadQuestion> {
        match self.dry_run.as_deref() {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(other) => Err(bad("dry_run", format!("{other:?}; expected true or false"))),
        }
    }

    /// The span of time.
    pub fn span(&self, now: Timestamp) -> Result<Span, BadQuestion> {
        let at = |part, text: &Option<String>| {
            let text = text.as_deref();
            text.map(|text| instant(part, text, now)).transpose()
        };
        let span = Span {
            from: at("from", &self.from)?,
            to: at("to", &self.to)?,
        };
        match (span.from, span.to) {
            (Some(from), Some(to)) if from >= to => {
                Err(bad("to", format!("{to} is not after from, {from}")))
            }
            _ => Ok(span),
        }
    }

    /// How long rows may be looked at; without a word, until all are.
    pub fn patience(&self) -> Result<Patience, BadQuestion> {
        let Some(text) = &self.within else {
            return Ok(Patience::ENDLESS);
        };
        let ms = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
            (Some(ms), _) => ms.parse().ok(),
            (None, Some(s)) => s.parse().ok().and_then(|s: u64| s.checked_mul(1_000)),
            (None, None) => None,
        };
        match ms {
            Some(ms) if ms <= WITHIN_MS_MAX => Ok(Patience::of(Duration::from_millis(ms))),
            _ => Err(bad(
                "within",
                format!("{text:?}; expected such as 900ms or 2s, at most 60s"),
            )),
        }
    }

    /// The conditions.
    pub fn filters(&self) -> Result<Vec<Filter>, BadQuestion> {
        if self.filters.len() > FILTERS_MAX {
            return Err(bad("where", format!("more than {FILTERS_MAX} conditions")));
        }
        let filters = self.filters.iter();
        filters.map(|text| filter(text)).collect()
    }

    fn dimensions(&self) -> Result<Vec<Dimension>, BadQuestion> {
        let names = self.by.iter().flat_map(|by| by.split(','));
        let names: Vec<&str> = names
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        if names.len() > DIMENSIONS_MAX {
            return Err(bad("by", format!("more than {DIMENSIONS_MAX} dimensions")));
        }
        for (n, name) in names.iter().enumerate() {
            if names[..n].contains(name) {
                return Err(bad("by", format!("{name:?} stands twice; remove one")));
            }
            let sums = [rows::SPEND_COLUMNS, rows::COMPARED_COLUMNS];
            if sums.iter().any(|sums| sums.contains(name)) {
                let what = format!("{name:?} is a sum of the answer; group by a tag or a column");
                return Err(bad("by", what));
            }
        }
        Ok(names.into_iter().map(Dimension::parse).collect())
    }

    fn interval_ms(&self) -> Result<Option<i64>, BadQuestion> {
        let Some(text) = &self.interval else {
            return Ok(None);
        };
        match age_ms(text) {
            Some(ms) if ms >= 60_000 => Ok(Some(ms)),
            _ => Err(bad(
                "interval",
                format!("unknown interval {text:?}; expected such as 15m, 1h or 1d"),
            )),
        }
    }

    fn sort(&self) -> Result<Sort, BadQuestion> {
        one_of_orders(&self.sort, Sort::parse, &Sort::ALL.map(Sort::name))
    }

    /// How many rows of sums are told apart.
    pub fn groups_max(&self) -> Result<usize, BadQuestion> {
        Ok(self.limit_to(GROUPS_MAX)?.unwrap_or(GROUPS_DEFAULT))
    }

    /// How many rows a page has, of a list that is answered whole where nobody says.
    pub fn page_rows(&self) -> Result<Option<usize>, BadQuestion> {
        self.limit_to(LIMIT_MAX)
    }

    fn limit(&self) -> Result<usize, BadQuestion> {
        Ok(self.limit_to(LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT))
    }

    fn limit_to(&self, max: usize) -> Result<Option<usize>, BadQuestion> {
        let Some(text) = &self.limit else {
            return Ok(None);
        };
        match text.parse() {
            Ok(limit) if (1..=max).contains(&limit) => Ok(Some(limit)),
            _ => Err(bad(
                "limit",
                format!("{text:?}; expected a number from 1 to {max}"),
            )),
        }
    }
}

fn one_of_orders<T: Default>(
    text: &Option<String>,
    parse: fn(&str) -> Option<T>,
    names: &[&str],
) -> Result<T, BadQuestion> {
    let Some(text) = text else {
        return Ok(T::default());
    };
    parse(text).ok_or_else(|| {
        let names = names.join(", ");
        let what = format!("unknown order {text:?}; expected one of {names}");
        bad("sort", what)
    })
}

/// Refuses parameters that stand twice, of which one would silently not count; those of `several`
/// add up.
pub fn each_once(pairs: &[(String, String)], several: &[&str]) -> Result<(), BadQuestion> {
    for (n, (name, value)) in pairs.iter().enumerate() {
        let mut before = pairs.iter().take(n);
        let first = before.find(|(other, _)| other == name && !several.contains(&name.as_str()));
        if let Some((_, first)) = first {
            let what = format!("{name}={first} and {name}={value}; leave one of them out");
            return Err(bad("query", what));
        }
    }
    Ok(())
}

fn bad(part: &'static str, what: String) -> BadQuestion {
    BadQuestion { part, what }
}

/// `team:checkout`; the value may hold colons.
fn filter(text: &str) -> Result<Filter, BadQuestion> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => Ok(Filter::new(name, value)),
        _ => {
            let columns = Column::ALL.map(Column::name).join(", ");
            let what = format!("{text:?}; expected NAME:VALUE, NAME a tag or one of {columns}");
            Err(bad("where", what))
        }
    }
}

/// Reads an instant such as `2026-11-22T04:00:00Z`, a day, or an age such as `24h`.
pub fn instant(part: &'static str, text: &str, now: Timestamp) -> Result<Timestamp, BadQuestion> {
    if let Some(age_ms) = age_ms(text) {
        return Ok(Timestamp::from_unix_ms(
            now.as_unix_ms().saturating_sub(age_ms),
        ));
    }
    // A plus that nobody encoded arrives as a space in a URL.
    let written = text.replace(' ', "+");
    Timestamp::parse(&written)
        .or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")))
        .ok_or_else(|| {
            if is_out_of_reach(text) {
                let (first, last) = (0, i64::MAX);
                let [first, last] = [first, last].map(Timestamp::from_unix_ms);
                let what = format!("{text:?} is out of reach; expected {first} to {last}");
                return bad(part, what);
            }
            let expected =
                "expected such as 2026-11-22T04:00:00Z, 2026-11-22 or an age such as 24h";
            bad(part, format!("unknown instant {text:?}; {expected}"))
        })
}

/// Whether it begins with a day of the last year that is written with four digits.
fn is_out_of_reach(text: &str) -> bool {
    let day = text.get(..10).unwrap_or_default();
    let day: Result<jiff::civil::Date, _> = day.parse();
    day.is_ok_and(|day| day.year() == 9999)
}

/// `15m`, `24h`, `7d` or `4w` in milliseconds.
fn age_ms(text: &str) -> Option<i64> {
    let unit_ms = match text.chars().last()? {
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        'w' => 604_800_000,
        _ => return None,
    };
    let digits = text.get(..text.len() - 1)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_320_000_000;

    fn ask(query: &[(&str, &str)]) -> Result<SpendQuery, String> {
        let pairs = query.iter().map(|(n, v)| (n.to_string(), v.to_string()));
        Parts::from_pairs(pairs.collect(), &["by", "where", "from", "to", "interval"])
            .and_then(|parts| parts.spend(Timestamp::from_unix_ms(NOW_MS)))
            .map_err(|bad| bad.to_string())
    }

    #[test]
    fn questions_as_people_write_them() {
        let query = ask(&[
            ("by", "team, model"),
            ("by", "namespace"),
            ("where", "team:a:b"),
            ("where", "provider:openai"),
            ("from", "24h"),
            ("to", "2026-11-22T05:00:00 01:00"),
            ("interval", "1h"),
        ])
        .unwrap();
        let names: Vec<&str> = query.by.iter().map(Dimension::name).collect();
        assert_eq!(names, ["team", "model", "namespace"]);
        assert_eq!(query.filters[0], Filter::new("team", "a:b"));
        assert_eq!(query.interval_ms, Some(3_600_000));
        let from = query.span.from.map(Timestamp::as_unix_ms);
        assert_eq!(from, Some(NOW_MS - 86_400_000));
        assert_eq!(query.span.to, Timestamp::parse("2026-11-22T04:00:00Z"));
        let day = ask(&[("from", "2026-11-22")]).unwrap();
        assert_eq!(day.span.from, Timestamp::parse("2026-11-22T00:00:00Z"));
    }

    #[test]
    fn no_parameter_silently_loses() {
        let twice = ask(&[("from", "24h"), ("by", "team"), ("from", "1h")]);
        let expected = "query: from=24h and from=1h; leave one of them out";
        assert_eq!(twice.unwrap_err(), expected);
        for text in ["9999-12-31", "9999-12-31T00:00:00Z"] {
            let expected = format!(
                "to: {text:?} is out of reach; expected 1970-01-01T00:00:00.000Z to \
                 9999-12-30T22:00:00.000Z"
            );
            assert_eq!(ask(&[("to", text)]).unwrap_err(), expected);
        }
    }

    #[test]
    fn patience_as_people_write_it() {
        let patience = |within: &str| {
            let parts = Parts {
                within: Some(within.to_owned()),
                ..Parts::default()
            };
            parts.patience()
        };
        assert_eq!(Parts::default().patience(), Ok(Patience::ENDLESS));
        assert!(patience("0ms").unwrap().is_over());
        for within in ["900ms", "60s"] {
            assert!(!patience(within).unwrap().is_over(), "{within}");
        }
        for within in ["", "s", "1", "61s", "1h", "-1s"] {
            let message = patience(within).unwrap_err().to_string();
            let expected = format!("within: {within:?}; expected such as 900ms or 2s, at most 60s");
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn each_bad_question_has_its_message() {
        for (name, value, message) in [
            (
                "group",
                "x",
                "query: unknown parameter \"group\"; expected by, where, from, to, interval",
            ),
            ("by", "team,team", "by: \"team\" stands twice; remove one"),
            (
                "by",
                "requests",
                "by: \"requests\" is a sum of the answer; group by a tag or a column",
            ),
            ("by", "a,b,c,d,e,f,g,h,i", "by: more than 8 dimensions"),
            (
                "interval",
                "10s",
                "interval: unknown interval \"10s\"; expected such as 15m, 1h or 1d",
            ),
            (
                "from",
                "yesterday",
                "from: unknown instant \"yesterday\"; expected such as 2026-11-22T04:00:00Z, \
                 2026-11-22 or an age such as 24h",
            ),
        ] {
            assert_eq!(ask(&[(name, value)]).unwrap_err(), message);
        }
        let reversed = ask(&[("from", "1h"), ("to", "2h")]).unwrap_err();
        assert!(reversed.starts_with("to: "), "{reversed}");
        let unnamed = ask(&[("where", "team")]).unwrap_err();
        assert!(
            unnamed.starts_with("where: \"team\"; expected NAME:VALUE"),
            "{unnamed}"
        );
    }
}
