//! Price tables as rows: what a model costs, since when, and where that was read.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tollmesh_pricing::{Book, Model, Row};
use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

use crate::question::{self, BadQuestion};
use crate::rows::Rows;

/// Which prices are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A provider's name for the model.
    pub model: String,
    /// The provider; all that have such a model, where none is named.
    pub provider: Option<String>,
    /// The instant at which prices hold.
    pub at: Timestamp,
}

/// The columns of a price row.
const COLUMNS: &[&str] = &[
    "provider",
    "model",
    "tier",
    "from",
    "until",
    "input_min",
    "input_max",
    "calendar",
    "region",
    "rates",
    "units",
    "source",
    "checked",
    "single_source",
    "note",
    "row",
];

// === impl Wanted ===

impl Wanted {
    /// Takes the parameters of a URL.
    pub fn from_pairs(pairs: Vec<(String, String)>, now: Timestamp) -> Result<Wanted, BadQuestion> {
        question::each_once(&pairs, &[])?;
        let mut wanted = Wanted {
            at: now,
            ..Wanted::default()
        };
        for (name, value) in pairs {
            match name.as_str() {
                "model" => wanted.model = value,
                "provider" => wanted.provider = Some(value).filter(|name| !name.is_empty()),
                "at" if value.is_empty() => {}
                "at" => wanted.at = question::instant("at", &value, now)?,
                _ => {
                    return Err(BadQuestion {
                        part: "parameters",
                        what: format!("unknown parameter {name:?}; expected model, provider, at"),
                    });
                }
            }
        }
        if wanted.model.is_empty() {
            let what = "missing; expected a model such as gpt-4o".to_owned();
            return Err(BadQuestion {
                part: "model",
                what,
            });
        }
        Ok(wanted)
    }
}

/// The models that are meant, each with its provider.
pub fn models<'b>(book: &'b Book, wanted: &Wanted) -> Vec<(&'b str, &'b Model)> {
    let named = wanted.provider.as_deref();
    let providers = book.providers().filter(|provider| match named {
        Some(named) => provider.eq_ignore_ascii_case(named),
        None => true,
    });
    let models = providers.map(|provider| (provider, book.model(provider, &wanted.model)));
    models
        .filter_map(|(provider, model)| Some((provider, model?)))
        .collect()
}

/// The rows of those models that hold at the instant: one for each tier, size of input and
/// calendar.
pub fn rows(book: &Book, wanted: &Wanted) -> Rows {
    let at = wanted.at.as_unix_ms();
    let models = models(book, wanted).into_iter();
    let holding = models.flat_map(|(provider, model)| {
        let rows = model.rows.iter();
        let holding = rows.filter(|row| row.from_ms <= at && at < row.until_ms);
        holding.map(move |row| item(provider, model, row))
    });
    Rows {
        columns: COLUMNS.iter().map(|column| (*column).to_owned()).collect(),
        items: holding.collect(),
        next_cursor: None,
    }
}

/// What tells one row of all tables from another: two rows that share it price the same calls.
const KEY: &[&str] = &[
    "provider",
    "model",
    "tier",
    "from",
    "input_min",
    "calendar",
    "region",
];

/// What decides a cost, beside that.
const TERMS: &[&str] = &["until", "input_max", "rates", "units"];

/// The rows that only one of both has, and those whose terms differ, in the order of their keys.
pub fn diff(before: &Book, after: &Book) -> Rows {
    let (mut before, mut after) = (by_key(before), by_key(after));
    let mut keys: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    let items = keys.into_iter().filter_map(|key| {
        let (was, is) = (before.remove(&key), after.remove(&key));
        let change = match (&was, &is) {
            (Some(was), Some(is)) if same_terms(was, is) => return None,
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "removed",
            _ => "added",
        };
        let mut item = Map::from_iter([("change".to_owned(), json!(change))]);
        let named = is.as_ref().or(was.as_ref());
        for field in KEY {
            let value = named.and_then(|row| row.get(*field)).cloned();
            item.insert((*field).to_owned(), value.unwrap_or_default());
        }
        item.insert("before".to_owned(), terms(was));
        item.insert("after".to_owned(), terms(is));
        Some(item)
    });
    let ends = ["before", "after"];
    let columns = ["change"].iter().chain(KEY).chain(&ends);
    Rows {
        items: items.collect(),
        columns: columns.map(|column| (*column).to_owned()).collect(),
        next_cursor: None,
    }
}

fn by_key(book: &Book) -> BTreeMap<String, Map<String, Value>> {
    let mut rows = BTreeMap::new();
    for (provider, model) in book.models() {
        for row in &model.rows {
            let item = item(provider, model, row);
            let key: Vec<&Value> = KEY.iter().filter_map(|field| item.get(*field)).collect();
            // A model that a later file overrides comes after the one that holds.
            rows.entry(json!(key).to_string()).or_insert(item);
        }
    }
    rows
}

fn same_terms(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    TERMS.iter().all(|field| a.get(*field) == b.get(*field))
}

/// The terms of a row that say something; `null` where there is no row.
fn terms(row: Option<Map<String, Value>>) -> Value {
    let Some(row) = row else { return Value::Null };
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    let terms = row.into_iter();
    let terms = terms.filter(|(name, value)| TERMS.contains(&name.as_str()) && says(value));
    Value::Object(terms.collect())
}

/// A row in JSON: rates in US dollars for a million tokens, units in US dollars each.
pub fn item(provider: &str, model: &Model, row: &Row) -> Map<String, Value> {
    let rates = Bucket::ALL.iter().filter_map(|bucket| {
        let rate = row.rate(*bucket)?;
        Some((bucket.name().to_owned(), json!(rate.to_string())))
    });
    let units = row.units.iter();
    let units = units.map(|(unit, rate)| (unit.name().to_owned(), json!(rate.to_string())));
    let day = |ms: i64, open: i64| (ms != open).then(|| Timestamp::from_unix_ms(ms).to_string());
    let fields = json!({
        "provider": provider,
        "model": model.id,
        "tier": row.tier,
        "from": day(row.from_ms, i64::MIN),
        "until": day(row.until_ms, i64::MAX),
        "input_min": row.input_min,
        "input_max": (row.input_max != u64::MAX).then_some(row.input_max),
        "calendar": row.at.as_ref().map(|(name, _)| name),
        "region": (!row.regions.is_empty()).then_some(&row.regions),
        "rates": rates.collect::<Map<_, _>>(),
        "units": units.collect::<Map<_, _>>(),
        "source": row.source,
        "checked": row.checked.map(|date| date.to_string()),
        "single_source": row.is_single_source,
        "note": row.note.as_ref().or(model.note.as_ref()),
        "row": row.id,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        let now = Timestamp::from_unix_ms(1_000_000);
        let ask = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            Wanted::from_pairs(pairs.collect(), now)
        };
        let wanted = ask(&[("model", "gpt-4o"), ("provider", ""), ("at", "")]).unwrap();
        assert_eq!((wanted.provider, wanted.at), (None, now));
        for (pairs, why) in [
            (&[][..], "model: missing; expected a model such as gpt-4o"),
            (
                &[("model", "x"), ("model", "y")],
                "query: model=x and model=y; leave one of them out",
            ),
            (
                &[("modle", "x")],
                "parameters: unknown parameter \"modle\"; expected model, provider, at",
            ),
            (
                &[("model", "x"), ("at", "soon")],
                "at: unknown instant \"soon\"; expected such as 2026-11-22T04:00:00Z, 2026-11-22 \
                 or an age such as 24h",
            ),
        ] {
            assert_eq!(ask(pairs).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn rows_hold_at_the_instant() {
        let book = Book::load(Book::shipped()).unwrap();
        let standard = |day: &str| {
            let at = Timestamp::parse(&format!("{day}T00:00:00Z")).unwrap();
            let wanted = Wanted {
                model: "claude-opus-4-6".to_owned(),
                provider: Some("Anthropic".to_owned()),
                at,
            };
            let items = rows(&book, &wanted).items;
            let items = items.into_iter().filter(|row| row["tier"] == "standard");
            items.collect::<Vec<_>>()
        };
        // Until that day, long inputs were dearer.
        let before = standard("2026-03-12");
        let sizes: Vec<_> = before.iter().map(|row| &row["input_max"]).collect();
        assert_eq!(sizes, [&json!(200_000), &json!(null)]);
        assert_eq!(before[1]["rates"]["input"], "10");
        let after = standard("2026-03-13");
        assert_eq!(after.len(), 1);
        assert_eq!(after[0]["from"], "2026-03-13T00:00:00.000Z");
        assert_eq!(after[0]["rates"]["input"], "5");
        assert!(after[0]["source"].as_str().unwrap().starts_with("https://"));
    }
}
